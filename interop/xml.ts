/** XML documents as trees of elements with positions. */

import { DOMParser, type Element as DomElement, ParseError } from "@xmldom/xmldom";
import { fileError } from "./file_error.ts";

/** An element of an XML document. */
export interface XmlElement {
  /** The name as written, with its prefix: "allow". */
  readonly name: string;
  /** Name as written → value. */
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: readonly XmlElement[];
  /** The text directly in it, with entities replaced, and without white space at its ends. */
  readonly text: string;
  /** The text directly in it, with entities replaced, and with white space as written. */
  readonly content: string;
  /** From 1. */
  readonly line: number;
  /** In characters, from 1. */
  readonly column: number;
}

/** Maximum length of a file: far more than the configuration files of any system have. */
const MAX_CHARACTERS = 4_000_000;

const MAX_DEPTH = 100;

// deno-lint-ignore no-control-regex -- xmldom treats some of them as spaces
const CONTROL = /[\0-\x08\x0b\x0c\x0e-\x1f]/;

/**
 * Parses an XML document. Nothing else is loaded: the reference to a document type is ignored. Entities other
 * than the five of XML are errors, and so are declarations in the document type.
 *
 * @param file The name of the file, for errors.
 * @param what Completes "Cannot …" in errors.
 * @throws {UcredError} `ERR_UCRED_POLICY` if it is not well-formed, or exceeds 4 million characters or 100
 * nested elements.
 */
export function parseXml(text: string, file: string, what: string): XmlElement {
  if (text.length > MAX_CHARACTERS) {
    throw fileError(what, file, `it has more than ${MAX_CHARACTERS} characters`, {});
  }
  const control = CONTROL.exec(text);
  if (control !== null) {
    const lines = text.slice(0, control.index).split("\n");
    const place = { line: lines.length, column: lines.at(-1)!.length + 1 };
    throw fileError(what, file, "XML has no control characters", place);
  }
  let first: string | undefined;
  const parser = new DOMParser({
    onError: (_level, message) => {
      first ??= message;
      throw new ParseError(message);
    },
  });
  try {
    const { documentElement, doctype } = parser.parseFromString(text, "text/xml");
    // Other parsers replace its entities and add the attributes that it declares.
    if (doctype?.internalSubset) {
      throw Object.assign(new ParseError("its document type has declarations"), {
        locator: doctype,
      });
    }
    if (documentElement === null) throw new ParseError("it has no element");
    return elementOf(documentElement, 0);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const { locator } = error as {
      readonly locator?: { lineNumber: number; columnNumber: number };
    };
    throw fileError(what, file, (first ?? error.message).split("\n")[0]!, {
      line: Math.max(1, locator?.lineNumber ?? 1), // xmldom has 0 before the first element
      column: Math.max(1, locator?.columnNumber ?? 1),
    });
  }

  function elementOf(element: DomElement, depth: number): XmlElement {
    const { lineNumber: line = 1, columnNumber: column = 1 } = element;
    if (depth >= MAX_DEPTH) {
      throw Object.assign(new ParseError(`more than ${MAX_DEPTH} elements are nested`), {
        locator: element,
      });
    }
    const attributes = new Map([...element.attributes].map(({ name, value }) => [name, value]));
    const children: XmlElement[] = [];
    let content = "";
    for (const child of element.childNodes) {
      if (child.nodeType === ELEMENT) children.push(elementOf(child as DomElement, depth + 1));
      else if (child.nodeType === TEXT || child.nodeType === CDATA) content += child.nodeValue;
    }
    const text = content.trim();
    return { name: element.tagName, attributes, children, text, content, line, column };
  }
}

const [ELEMENT, TEXT, CDATA] = [1, 3, 4];
