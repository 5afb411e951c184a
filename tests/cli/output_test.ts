/** Tests of text layout: columns on a terminal. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { fit, fitEnd, pad, visibleLength } from "../../cli/output.ts";

test("visibleLength() counts the columns of a terminal", () => {
  const columns: readonly [text: string, columns: number][] = [
    ["", 0],
    ["abc", 3],
    ["\u001b[31mred\u001b[39m", 3],
    ["日本語", 6],
    ["한국어", 6],
    ["ｆｕｌｌ", 8],
    ["ｶﾅ", 2],
    ["Zoë", 3],
    ["Zoe\u0308", 3],
    ["🔥", 2],
    ["𠮷", 2],
    ["…", 1],
  ];
  for (const [text, expected] of columns) assert.equal(visibleLength(text), expected, text);
});

test("fit(), fitEnd() and pad() return the requested number of columns", () => {
  for (
    const text of ["/usr/bin/日本語/プログラム", "/日本語", "日本語日本語日本語", "/usr/bin/perl"]
  ) {
    for (let width = 1; width < 40; width++) {
      for (const cut of [fit(text, width), fitEnd(text, width)]) {
        assert.ok(visibleLength(cut) <= width, `${cut} in ${width}`);
        assert.equal(visibleLength(pad(cut, width)), width);
        const isWhole = visibleLength(text) <= width;
        assert.equal(cut === text, isWhole, `${cut} in ${width}`);
        if (!isWhole) assert.ok(visibleLength(cut) >= width - 1, `${cut} in ${width}`);
      }
    }
  }
});
