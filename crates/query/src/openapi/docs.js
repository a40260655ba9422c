// Makes a form of each operation of the description, and shows what the service answers.

const MAX_SHOWN = 200_000;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function field(parameter) {
  const input = element("input", { name: parameter.name, autocomplete: "off", spellcheck: false });
  input.dataset.in = parameter.in;
  return element("label", {}, element("code", { textContent: parameter.name }), " ", parameter.description ?? "", input);
}

function request(path, form) {
  const query = new URLSearchParams();
  const headers = {};
  const token = document.getElementById("token").value.trim();
  if (token) headers["Coder-Session-Token"] = token;
  for (const input of form.querySelectorAll("input")) {
    if (input.dataset.in === "path") path = path.replace(`{${input.name}}`, encodeURIComponent(input.value));
    else if (input.value && input.dataset.in === "query") query.set(input.name, input.value);
    else if (input.value && input.dataset.in === "header") headers[input.name] = input.value;
  }
  return { url: query.size ? `${path}?${query}` : path, headers };
}

async function show(path, form, output, stop) {
  const { url, headers } = request(path, form);
  output.textContent = `GET ${url}\n`;
  const response = await fetch(url, { headers, signal: stop.signal });
  output.textContent += `${response.status} ${response.statusText}\n\n`;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let shown = 0;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    shown += value.length;
    output.textContent += value;
    if (shown > MAX_SHOWN) {
      output.textContent += "\n… and more, which is not shown here";
      stop.abort();
    }
  }
  if (response.headers.get("content-type")?.startsWith("application/json")) {
    const [head, body] = output.textContent.split("\n\n", 2);
    output.textContent = `${head}\n\n${JSON.stringify(JSON.parse(body), null, 2)}`;
  }
}

function operation(path, description) {
  const form = element("form", {}, ...(description.parameters ?? []).map(field));
  const output = element("pre", { tabIndex: 0 });
  output.setAttribute("aria-live", "polite");
  let stop = new AbortController();
  form.append(element("button", { textContent: "Try it" }));
  form.append(element("button", { type: "button", textContent: "Stop", onclick: () => stop.abort() }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    stop.abort();
    stop = new AbortController();
    show(path, form, output, stop).catch((error) => {
      if (error.name !== "AbortError") output.textContent += `\n${error}`;
    });
  });
  const statuses = Object.entries(description.responses).map(([status, { description }]) =>
    element("li", {}, element("code", { textContent: status }), ` ${description}`));
  return element("section", {},
    element("h2", {}, element("code", { textContent: `GET ${path}` })),
    element("p", { textContent: description.summary ?? "" }),
    element("ul", {}, ...statuses), form, output);
}

const description = await (await fetch("/api/v2/connectionlog/openapi.json")).json();
const operations = Object.entries(description.paths).map(([path, { get }]) => operation(path, get));
document.getElementById("operations").replaceChildren(...operations);
