"""SQLite databases of one-api and new-api, with the tables as their own programs make them.

The columns are those of their models, in SQLite's types as GORM writes them. Sources, read 2026-11-23:
https://github.com/songquanpeng/one-api at 8df4a26 (model/channel.go, token.go, user.go, option.go) and
https://github.com/QuantumNous/new-api (model/channel.go, token.go).
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

_USERS = """
CREATE TABLE `users` (`id` integer PRIMARY KEY AUTOINCREMENT, `username` text UNIQUE, `password` text NOT NULL,
`display_name` text, `role` int DEFAULT 1, `status` int DEFAULT 1, `email` text, `access_token` char(32),
`quota` bigint DEFAULT 0, `used_quota` bigint DEFAULT 0, `request_count` int DEFAULT 0,
`group` varchar(32) DEFAULT "default", `aff_code` varchar(32), `inviter_id` integer);
CREATE TABLE `options` (`key` text, `value` text, PRIMARY KEY (`key`));
CREATE TABLE `logs` (`id` integer PRIMARY KEY AUTOINCREMENT, `content` text);
"""

ONE_API = (
    _USERS
    + """
CREATE TABLE `channels` (`id` integer PRIMARY KEY AUTOINCREMENT, `type` integer DEFAULT 0, `key` text,
`status` integer DEFAULT 1, `name` text, `weight` integer DEFAULT 0, `created_time` bigint, `test_time` bigint,
`response_time` integer, `base_url` text DEFAULT "", `other` text, `balance` real, `balance_updated_time` bigint,
`models` text, `group` varchar(32) DEFAULT "default", `used_quota` bigint DEFAULT 0,
`model_mapping` varchar(1024) DEFAULT "", `priority` bigint DEFAULT 0, `config` text, `system_prompt` text);
CREATE TABLE `tokens` (`id` integer PRIMARY KEY AUTOINCREMENT, `user_id` integer, `key` char(48),
`status` integer DEFAULT 1, `name` text, `created_time` bigint, `accessed_time` bigint,
`expired_time` bigint DEFAULT -1, `remain_quota` bigint DEFAULT 0, `unlimited_quota` numeric DEFAULT false,
`used_quota` bigint DEFAULT 0, `models` text, `subnet` text DEFAULT "");
CREATE UNIQUE INDEX `idx_tokens_key` ON `tokens`(`key`);
"""
)

NEW_API = (
    _USERS
    + """
CREATE TABLE `channels` (`id` integer PRIMARY KEY AUTOINCREMENT, `type` integer DEFAULT 0, `key` text NOT NULL,
`open_ai_organization` text, `openai_organization` text, `test_model` text, `status` integer DEFAULT 1, `name` text,
`weight` integer DEFAULT 0, `created_time` bigint, `test_time` bigint, `response_time` integer,
`base_url` text DEFAULT "", `other` text, `balance` real, `balance_updated_time` bigint, `models` text,
`group` varchar(64) DEFAULT "default", `used_quota` bigint DEFAULT 0, `model_mapping` text,
`status_code_mapping` varchar(1024) DEFAULT "", `priority` bigint DEFAULT 0, `auto_ban` integer DEFAULT 1,
`other_info` text, `tag` text, `setting` text, `param_override` text, `header_override` text, `remark` varchar(255),
`channel_info` json, `settings` text);
CREATE TABLE `tokens` (`id` integer PRIMARY KEY AUTOINCREMENT, `user_id` integer, `key` char(48),
`status` integer DEFAULT 1, `name` text, `created_time` bigint, `accessed_time` bigint,
`expired_time` bigint DEFAULT -1, `remain_quota` integer DEFAULT 0, `unlimited_quota` numeric,
`model_limits_enabled` numeric, `model_limits` text, `allow_ips` text DEFAULT "", `used_quota` integer DEFAULT 0,
`group` text DEFAULT "", `cross_group_retry` numeric, `deleted_at` datetime);
"""
)

Rows = dict[str, list[dict[str, Any]]]


def make(file: Path, schema: str, rows: Rows) -> Path:
    """Make a database with these rows in its tables; columns that a row does not name have their defaults."""
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(schema)
        for table, each in rows.items():
            for row in each:
                names = ", ".join(f"`{name}`" for name in row)
                marks = ", ".join("?" for _ in row)
                connection.execute(f"INSERT INTO `{table}` ({names}) VALUES ({marks})", list(row.values()))
        connection.commit()
    return file
