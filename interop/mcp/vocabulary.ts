/** The vocabulary `mcp`: what clients of the Model Context Protocol request. */

import { defineVocabulary, type Vocabulary } from "../../core/policy/document/vocabulary.ts";

/**
 * The actions and attributes of MCP, for policies with `about: mcp`. An action is the method of a request,
 * followed by the name or URI that it is about.
 */
export const mcpVocabulary: Vocabulary = defineVocabulary({
  name: "mcp",
  actions: {
    "initialize": "The client opens a session, queries the server's features, sends `ping`, and " +
      "notifies the server of progress, cancellation and changes of its roots.",
    "tools/list": "The client lists the tools. The result has those that it may call.",
    "tools/call **": "The client calls a tool: `tools/call read_file`.",
    "resources/list": "The client lists the resources. The result has those that it may read.",
    "resources/templates/list":
      "The client lists the templates of URIs. The result has those that it may read.",
    "resources/read **": "The client reads a resource: `resources/read file:///srv/a.txt`.",
    "resources/subscribe **": "The client requests notifications about changes of a resource.",
    "resources/unsubscribe **": "The client ends these notifications.",
    "prompts/list": "The client lists the prompts. The result has those that it may use.",
    "prompts/get **": "The client uses a prompt: `prompts/get review`.",
    "completion/complete": "The client requests completions of an argument. It also needs " +
      "`prompts/get` or `resources/read` for the prompt or the template.",
    "logging/setLevel": "The client chooses the level of log messages that it receives.",
    "subscriptions/listen": "The client opens a stream of notifications. It also needs " +
      "`resources/subscribe` for each resource, and `tasks/get` for tasks.",
    "tasks/list": "The client lists tasks.",
    "tasks/get": "The client reads the state of a task.",
    "tasks/result": "The client reads the result of a task.",
    "tasks/update": "The client sends input to a task.",
    "tasks/cancel": "The client ends a task.",
  },
  attributes: {
    name: {
      type: "text",
      description: "The name of the tool or prompt, again: conditions can exclude it.",
      actions: ["tools/call **", "prompts/get **"],
    },
    uri: {
      type: "text",
      description: "The URI of the resource, again: conditions can exclude it.",
      actions: ["resources/read **", "resources/subscribe **", "resources/unsubscribe **"],
    },
    arguments: {
      type: "parameters",
      description: "The arguments by name, as lists of texts; of objects by the names joined by " +
        "dots: `options.path`.",
      actions: ["tools/call **", "prompts/get **"],
    },
    level: {
      type: "text",
      description: "The level of log messages: debug, info, notice, warning, error and higher.",
      actions: ["logging/setLevel"],
    },
  },
});
