// Does what an application does with the openai package, and prints what it saw as one JSON object.
// Usage: node session.mjs BASE_URL KEY

import OpenAI from "openai";

const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const ask = (text) => [{ role: "user", content: text }];

async function listen(stream) {
  let text = "";
  let usage = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  return { text, usage };
}

async function failure(attempt) {
  try {
    await attempt();
  } catch (error) {
    return { class: error.constructor.name, status: error.status, code: error.code, requestId: error.requestID };
  }
  return { class: "none" };
}

function create(body, using = client) {
  return using.chat.completions.create({ model: "gpt-fake-small", messages: ask("a b c"), ...body });
}

async function cut() {
  let text = "";
  try {
    for await (const chunk of await create({ model: "cut", stream: true })) {
      text += chunk.choices[0]?.delta?.content ?? "";
    }
  } catch (error) {
    return { text, error: { class: error.constructor.name, code: error.code } };
  }
  return { text, error: { class: "none" } };
}

async function whole() {
  const { data, response } = await create({ messages: ask("Hello there") }).withResponse();
  return {
    text: data.choices[0].message.content,
    usage: data.usage,
    requestId: data._request_id,
    header: response.headers.get("request-id"),
  };
}

async function models() {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  return names;
}

const withKey = (key) => new OpenAI({ baseURL, apiKey: key, maxRetries: 0 });
const seen = {
  whole: await whole(),
  stream: await listen(await create({ stream: true })),
  streamWithUsage: await listen(await create({ stream: true, stream_options: { include_usage: true } })),
  models: await models(),
  model: (await client.models.retrieve("demo/echo")).id,
  cut: await cut(),
  errors: {
    unknownModel: await failure(() => create({ model: "demo/nothing" })),
    unknownKey: await failure(() => create({}, withKey("sk-cg-test-nobody"))),
    noKey: await failure(() => create({}, withKey("none"))),
    wrongField: await failure(() => create({ messages: [] })),
    limit: await failure(() => create({ model: "demo/429" })),
    broken: await failure(() => create({ model: "broken" })),
  },
};
console.log(JSON.stringify(seen));
