// The clipboard, which browsers give to pages of this machine and of https only.

export async function copy(text, say, done) {
  try {
    await navigator.clipboard.writeText(text);
    say(done);
  } catch {
    say("The browser lets nothing be copied from this address.");
  }
}

export const copyLink = (say) => copy(location.href, say, "The link to this view is copied.");
