
"use strict";
// Text reaches the page as text nodes only: nothing in the document can become markup.
const METHODS = ["get", "post", "put", "patch", "delete"];

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function resolve(document_, node) {
  const seen = new Set();
  while (node && node.$ref && !seen.has(node.$ref)) {
    seen.add(node.$ref);
    node = node.$ref.slice(2).split("/").reduce((at, part) => at && at[part.replace(/~1/g, "/").replace(/~0/g, "~")], document_);
  }
  return node || {};
}

// A value of the schema's shape, to begin with.
function example(document_, node, depth = 0) {
  const schema = resolve(document_, node);
  if (schema.example !== undefined) return schema.example;
  if (schema.examples && schema.examples.length) return schema.examples[0];
  if (schema.const !== undefined) return schema.const;
  if (schema.enum) return schema.enum[0];
  if (depth > 6) return null;
  const choice = schema.oneOf || schema.anyOf || schema.allOf;
  if (choice) return example(document_, choice[0], depth + 1);
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type;
  if (type === "object" || schema.properties) {
    const fields = Object.entries(schema.properties || {});
    return Object.fromEntries(fields.map(([name, field]) => [name, example(document_, field, depth + 1)]));
  }
  if (type === "array") return [example(document_, schema.items, depth + 1)];
  if (type === "integer" || type === "number") return 0;
  if (type === "boolean") return false;
  return type === "null" ? null : "";
}

function tryForm(document_, method, path, operation, parameters) {
  const inputs = new Map();
  const form = element("div");
  form.append(element("h3", "Try it"));
  for (const parameter of parameters) {
    const input = element("input");
    inputs.set(parameter, input);
    form.append(element("label", `${parameter.name} (${parameter.in}${parameter.required ? ", required" : ""})`, input));
  }
  const schema = resolve(document_, operation.requestBody).content?.["application/json"]?.schema;
  const body = schema && element("textarea");
  if (body) {
    body.value = JSON.stringify(example(document_, schema), null, 2);
    form.append(element("label", "Body", body));
  }
  const send = element("button", "Send");
  const answer = element("pre");
  answer.hidden = true;
  send.addEventListener("click", async () => {
    let target = path;
    const query = new URLSearchParams();
    for (const [parameter, input] of inputs) {
      if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (input.value !== "") query.set(parameter.name, input.value);
    }
    const headers = {};
    const token = document.getElementById("token").value;
    if (token) headers.authorization = `Bearer ${token}`;
    if (body) headers["content-type"] = "application/json";
    answer.hidden = false;
    answer.textContent = "…";
    try {
      const url = query.size ? `${target}?${query}` : target;
      const response = await fetch(url, { method: method.toUpperCase(), headers, body: body ? body.value : undefined });
      const text = await response.text();
      let shown = text;
      try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* shown as it came */ }
      answer.textContent = `${response.status} ${response.statusText}\n${shown}`;
    } catch (error) {
      answer.textContent = String(error);
    }
  });
  form.append(send, answer);
  return form;
}

function operationDetails(document_, path, method, item) {
  const operation = item[method];
  const details = element("details");
  details.append(element("summary", "", element("b", method.toUpperCase()), element("code", path), element("span", ` ${operation.summary || ""}`)));
  details.dataset.text = `${method} ${path} ${operation.summary || ""} ${operation.operationId || ""}`.toLowerCase();
  // Made when it is opened: a long interface is on the page at once.
  details.addEventListener("toggle", () => {
    if (!details.open || details.dataset.filled) return;
    details.dataset.filled = "yes";
    if (operation.description) details.append(element("p", operation.description));
    const parameters = [...(item.parameters || []), ...(operation.parameters || [])].map((one) => resolve(document_, one));
    details.append(element("h3", "Answers"));
    for (const [status, given] of Object.entries(operation.responses || {})) {
      const response = resolve(document_, given);
      details.append(element("div", "", element("b", status), element("span", ` ${response.description || ""}`)));
      const schema = response.content?.["application/json"]?.schema;
      if (schema) details.append(element("pre", JSON.stringify(example(document_, schema), null, 2)));
    }
    details.append(tryForm(document_, method, path, operation, parameters));
  }, { passive: true });
  return details;
}

async function show() {
  const about = document.getElementById("about");
  const main = document.getElementById("operations");
  try {
    const response = await fetch("/openapi.json");
    const document_ = await response.json();
    const groups = new Map();
    for (const [path, item] of Object.entries(document_.paths || {})) {
      for (const method of METHODS.filter((one) => item[one])) {
        const tag = item[method].tags?.[0] || "other";
        if (!groups.has(tag)) groups.set(tag, []);
        groups.get(tag).push(operationDetails(document_, path, method, item));
      }
    }
    about.firstChild.textContent = `${document_.info?.title || "Echo"} ${document_.info?.version || ""}, from `;
    about.lastChild.textContent = "";
    for (const [tag, all] of groups) main.append(element("section", "", element("h2", tag), ...all));
  } catch (error) {
    about.textContent = `The interface cannot be read: ${error}`;
  }
}

document.getElementById("find").addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const details of document.querySelectorAll("details")) details.hidden = !details.dataset.text.includes(wanted);
  for (const section of document.querySelectorAll("section")) section.hidden = !section.querySelector("details:not([hidden])");
});
show();
