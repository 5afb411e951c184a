/** A plugin for Stryker: no mutants of sentences, which people read and programs do not parse. */

interface Path {
  readonly node: {
    readonly type: string;
    readonly value?: unknown;
    readonly quasis?: readonly { readonly value: { readonly raw: string } }[];
  };
}

const isSentence = (text: string) => /[a-z,"] [a-z"]/i.test(text);

export const strykerPlugins = [{
  kind: "Ignore",
  name: "texts",
  value: {
    shouldIgnore({ node }: Path): string | undefined {
      const texts = node.type === "StringLiteral"
        ? [String(node.value)]
        : node.type === "TemplateLiteral"
        ? [node.quasis!.map(({ value }) => value.raw).join("x")]
        : [];
      return texts.some(isSentence) ? "a sentence" : undefined;
    },
  },
}];
