// Places in source code: from tags of a span and from lines of a stack, with an address that editors open.

const PATHS = ["code.filepath", "code.file.path", "code.file"];
const LINES = ["code.lineno", "code.line.number", "code.line"];

function place(path, line) {
  const short = path.split("/").slice(-2).join("/");
  // Known to VS Code and its kin; handled by the system, nothing is fetched.
  return { text: line ? `${short}:${line}` : short, editor: `vscode://file${path.startsWith("/") ? "" : "/"}${path}${line ? `:${line}` : ""}` };
}

/** Where a span's code is, or null when it does not say. */
export function source(span) {
  const tags = { ...span.meta, ...span.metrics };
  const path = PATHS.map((key) => tags[key]).find(Boolean);
  return path ? place(String(path), LINES.map((key) => tags[key]).find(Boolean)) : null;
}

/** The lines of a Python stack; those that name a file with their place. */
export function frames(stack) {
  return stack.split("\n").filter(Boolean).map((line) => {
    const found = /^(.*File ")([^"]+)(", line (\d+).*)$/.exec(line);
    return found ? { before: found[1], place: place(found[2], found[4]), after: found[3] } : { before: line };
  });
}
