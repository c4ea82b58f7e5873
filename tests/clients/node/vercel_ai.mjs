// The Vercel AI SDK, by one of its providers.
// Usage: node vercel_ai.mjs KIND ROOT MODEL KEY GREETING QUESTION

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [kind, root, name, apiKey, greeting, question] = process.argv.slice(2);
const baseURL = `${root}/v1`;
const models = {
  responses: () => createOpenAI({ baseURL, apiKey })(name),
  chat: () => createOpenAI({ baseURL, apiKey }).chat(name),
  compatible: () => createOpenAICompatible({ name: "chatgate", baseURL, apiKey })(name),
  anthropic: () => createAnthropic({ baseURL, apiKey })(name),
};
const model = models[kind]();
const look = tool({
  description: "Look at something.",
  inputSchema: z.object({ at: z.string() }),
  execute: async ({ at }) => (at === "sea" ? "calm as glass" : "?"),
});

const plain = (await generateText({ model, prompt: greeting, maxRetries: 0 })).text;
const pieces = [];
for await (const piece of streamText({ model, prompt: greeting, maxRetries: 0 }).textStream) pieces.push(piece);
const steps = { model, prompt: question, tools: { look }, stopWhen: stepCountIs(3), maxRetries: 0 };
const told = await streamText(steps).text;
console.log(JSON.stringify({ plain, stream: pieces, tool: told }));
