// The @anthropic-ai/sdk package.
// Usage: node anthropic_package.mjs ROOT MODEL KEY GREETING QUESTION

import Anthropic from "@anthropic-ai/sdk";

const [baseURL, model, apiKey, greeting, question] = process.argv.slice(2);
const client = new Anthropic({ baseURL, apiKey, maxRetries: 0 });
const tools = [
  { name: "look", input_schema: { type: "object", properties: { at: { type: "string" } }, required: ["at"] } },
];
const ask = (content) => [{ role: "user", content }];
const body = (messages) => ({ model, max_tokens: 99, messages });

const plain = (await client.messages.create(body(ask(greeting)))).content[0].text;
const pieces = [];
const stream = client.messages.stream(body(ask(greeting)));
stream.on("text", (piece) => pieces.push(piece));
await stream.finalMessage();
const { content } = await client.messages.stream({ ...body(ask(question)), tools }).finalMessage();
const call = content.at(-1);
const result = { type: "tool_result", tool_use_id: call.id, content: "calm as glass" };
const called = { type: "tool_use", id: call.id, name: call.name, input: call.input };
const dialogue = [...ask(question), { role: "assistant", content: [called] }, { role: "user", content: [result] }];
const told = await client.messages.create({ ...body(dialogue), tools });
console.log(JSON.stringify({ plain, stream: pieces, tool: told.content[0].text }));
