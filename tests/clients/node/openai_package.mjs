// The openai package: by chat completions, responses, or responses over a WebSocket.
// Usage: node openai_package.mjs KIND ROOT MODEL KEY GREETING QUESTION

import OpenAI from "openai";
import { ResponsesWS } from "openai/resources/responses/ws";

const [kind, root, model, apiKey, greeting, question] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${root}/v1`, apiKey, maxRetries: 0 });
const parameters = { type: "object", properties: { at: { type: "string" } }, required: ["at"] };
const ask = (content) => [{ role: "user", content }];

async function chat() {
  const tools = [{ type: "function", function: { name: "look", parameters } }];
  const create = (body) => client.chat.completions.create({ model, ...body });
  const plain = (await create({ messages: ask(greeting) })).choices[0].message.content;
  const pieces = [];
  for await (const chunk of await create({ messages: ask(greeting), stream: true })) {
    const piece = chunk.choices[0]?.delta?.content;
    if (piece) pieces.push(piece);
  }
  const called = await client.chat.completions.stream({ model, messages: ask(question), tools }).finalMessage();
  const result = { role: "tool", tool_call_id: called.tool_calls[0].id, content: "calm as glass" };
  const told = await create({ messages: [...ask(question), called, result], tools });
  return { plain, stream: pieces, tool: told.choices[0].message.content };
}

const tools = [{ type: "function", name: "look", parameters, strict: false }];

async function responses() {
  const plain = (await client.responses.create({ model, input: greeting })).output_text;
  const pieces = [];
  for await (const event of await client.responses.create({ model, input: greeting, stream: true })) {
    if (event.type === "response.output_text.delta") pieces.push(event.delta);
  }
  const [call] = (await client.responses.stream({ model, input: question, tools }).finalResponse()).output;
  const result = { type: "function_call_output", call_id: call.call_id, output: "calm as glass" };
  const called = { type: "function_call", call_id: call.call_id, name: call.name, arguments: call.arguments };
  const told = await client.responses.create({ model, input: [...ask(question), called, result], tools });
  return { plain, stream: pieces, tool: told.output_text };
}

async function websocket() {
  const connection = new ResponsesWS(client);
  const events = connection.stream()[Symbol.asyncIterator]();
  async function turn(request) {
    connection.send({ type: "response.create", model, store: false, tools, ...request });
    const pieces = [];
    for (;;) {
      const { value: event, done } = await events.next();
      if (done || event.type === "error") throw new Error(JSON.stringify(event));
      if (event.type !== "message") continue;
      const { message } = event;
      if (message.type === "response.output_text.delta") pieces.push(message.delta);
      if (message.type === "response.failed") throw new Error(JSON.stringify(message));
      if (message.type === "response.completed") return { pieces, response: message.response };
    }
  }
  const { pieces, response: greeted } = await turn({ input: greeting });
  const first = (await turn({ input: question, previous_response_id: greeted.id })).response;
  const result = { type: "function_call_output", call_id: first.output[0].call_id, output: "calm as glass" };
  const told = await turn({ input: [result], previous_response_id: first.id });
  connection.close();
  return { plain: pieces.join(""), stream: pieces, tool: told.pieces.join("") };
}

console.log(JSON.stringify(await { chat, responses, websocket }[kind]()));
