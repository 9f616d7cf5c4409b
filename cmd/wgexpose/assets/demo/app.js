const at = (id) => document.getElementById(id);

const told = await (await fetch("whoami")).json();
at("visitor").textContent = told.visitor;
at("host").textContent = told.host;
at("app").textContent = told.app;
for (const [name, value] of told.headers) {
  const dt = document.createElement("dt");
  const dd = document.createElement("dd");
  dt.textContent = name;
  dd.textContent = value;
  at("headers").append(dt, dd);
}

const socket = new WebSocket(new URL("echo", location.href.replace(/^http/, "ws")));
const sent = [];
const say = (text) => { at("ws-log").textContent = (at("ws-log").textContent + text + "\n").split("\n").slice(-6).join("\n"); };
socket.onopen = () => { at("ws-state").textContent = "open"; };
socket.onclose = () => { at("ws-state").textContent = "closed"; };
socket.onmessage = (event) => {
  const began = sent.shift();
  say(`${event.data}   ${(performance.now() - began).toFixed(1)} ms`);
};
at("ws-form").onsubmit = (event) => {
  event.preventDefault();
  if (socket.readyState !== WebSocket.OPEN) return say("the connection is closed; reload the page");
  sent.push(performance.now());
  socket.send(at("ws-text").value);
};

at("stream").onclick = async () => {
  at("stream").disabled = true;
  at("stream-log").textContent = "";
  try {
    const answer = await fetch("stream");
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part; !(part = await reader.read()).done;) at("stream-log").textContent += part.value;
  } catch (err) {
    at("stream-log").textContent += `\n${err}`;
  } finally {
    at("stream").disabled = false;
  }
};
