"""nginx: not a gateway, but what a relay costs when it is written in C and does nothing else."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.peers.peer import Peer, needed_program

CONFIGURATION = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 32768; }}
worker_rlimit_nofile 65536;
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    client_body_buffer_size 64k;
    upstream model {{
        server 127.0.0.1:{upstream_port};
        keepalive 16384;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=16384;
        location / {{
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


class Nginx(Peer):
    """nginx as a reverse proxy."""

    name = "nginx"
    title = "nginx (C)"
    setup = "one worker, keep-alive on both sides, no buffering of answers, no access log; does nothing but relay"

    def install(self) -> None:
        """Find it on the machine. Raises `UnavailableError`."""
        needed_program("nginx", "nginx")

    def version(self) -> str:
        """Return the version it tells."""
        said = subprocess.run(
            [needed_program("nginx", "nginx"), "-v"], capture_output=True, text=True, check=False
        ).stderr
        found = re.search(r"nginx/(\S+)", said)
        return found[1] if found else "?"

    def installed_bytes(self) -> int:
        """Return the size of the program, without its modules and the system's libraries."""
        return needed_program("nginx", "nginx").resolve().stat().st_size

    def command(self, port: int, upstream_port: int) -> Sequence[str | Path]:
        """Write nginx.conf and return how it is started."""
        folder = self.folder / str(port)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "nginx.conf"
        file.write_text(CONFIGURATION.format(folder=folder, port=port, upstream_port=upstream_port))
        return [needed_program("nginx", "nginx"), "-p", folder, "-c", file]
