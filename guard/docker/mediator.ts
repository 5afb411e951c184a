/** The guard's Docker mode: each request is read, decided by action and attributes, and written anew. */

import { Buffer } from "node:buffer";
import type { Attributes, Decision } from "../../core/policy/decide/decision.ts";
import {
  type LoggedAttributes,
  MAX_LOGGED_CHARACTERS,
  MAX_LOGGED_TEXTS,
} from "../../core/policy/tested_attributes.ts";
import { textOf } from "../../core/text.ts";
import {
  type DockerRequest,
  isRefusal,
  type JudgedRequest,
  readBody,
  readRequest,
  type Reference,
  type Refusal,
  type Replacements,
  writeRequest,
} from "../../interop/docker/mod.ts";
import { idsOf } from "../../interop/docker/judge.ts";
import { keptAttributes } from "../../interop/docker/learned.ts";
import { isNameOf } from "../../interop/docker/routes.ts";
import type { LearnedRequest } from "../../interop/recording.ts";
import { type Admission, decisionWithout } from "../../servers/admission/admission.ts";
import type { Request, Response } from "../http/message.ts";
import type {
  Answer,
  Exchange,
  Forward,
  MediatedClient,
  Mediator,
  ResponseFilter,
} from "../http/mediator.ts";
import type { Recorder } from "../recorder.ts";
import type { Upstream } from "../upstream.ts";
import { dockerAnswer, withoutOthers } from "./answers.ts";
import { Engine, jsonOf } from "./engine.ts";
import { checkAction, checkHostPaths, type HostPathRules } from "./host_paths.ts";
import { fieldIn, type JsonObject, objectIn, record, records } from "./json.ts";
import { type FoundObject, keptLines, type ObjectKind, Objects, pathOf } from "./objects.ts";
import { fullIdIn, isFullId } from "./full_id.ts";
import type { Ledger } from "./ledger.ts";
import { type Exec, OWNER_LABEL, Owners, RESERVED_PREFIX } from "./owners.ts";
import { dependsOnAttributes, Visibility, withoutContainer } from "./visibility.ts";

/** Thrown to end a request with an answer of the guard, before it is forwarded. */
class Ended extends Error {
  readonly answer: Answer;

  constructor(answer: Answer) {
    super(answer.title);
    this.answer = answer;
  }
}

/** Networks that every engine has. They have no owner. */
const BUILT_IN_NETWORKS: ReadonlySet<string> = new Set(["bridge", "host", "none", "default"]);

/** A uid that stands for every other owner: the largest one, which no account should have. */
const NO_OWNER = 0xffff_fffe;

/** The attributes that each record of the audit log has. */
const RECORDED = ["id", "name", "image", "owner", "dangers"] as const;

/** The attributes for the audit log, with texts of clients shortened. */
function recordOf(attributes: Attributes): LoggedAttributes {
  const record: { [name: string]: LoggedAttributes[string] } = {};
  for (const name of RECORDED) {
    const value = attributes[name];
    if (typeof value === "number") record[name] = value;
    else if (typeof value === "string") record[name] = value.slice(0, MAX_LOGGED_CHARACTERS);
    else if (Array.isArray(value) && value.length > 0) {
      record[name] = value.slice(0, MAX_LOGGED_TEXTS)
        .map((text) => String(text).slice(0, MAX_LOGGED_CHARACTERS));
    }
  }
  return record;
}

/** Filters of lists that name another object: their result reveals whether it exists. */
const FILTERS_BY_OBJECT = ["before", "since", "volume", "network"];

/** Options of a mediator. */
export interface MediatorOptions {
  readonly hostPaths: HostPathRules;
  /** Records the requests. */
  readonly learn: Recorder | undefined;
  /** Remembers owners across restarts. */
  readonly ledger: Ledger | undefined;
}

/** Decides the requests of all clients of a guard. */
export class DockerMediator implements Mediator {
  readonly #parts: Parts;
  readonly #ledger: Ledger | undefined;

  constructor(
    admission: Admission,
    upstream: Upstream,
    { hostPaths, learn, ledger }: MediatorOptions,
  ) {
    const engine = new Engine(upstream);
    const owners = new Owners(engine, ledger);
    const objects = new Objects(engine, owners);
    this.#parts = { admission, upstream, engine, owners, objects, hostPaths, learn };
    this.#ledger = ledger;
  }

  answer(status: number, title: string, detail: string): Answer {
    return dockerAnswer(status, detail, title);
  }

  close(): void {
    this.#parts.engine.close();
  }

  end(): void {
    this.#ledger?.close();
  }

  open(request: Request, client: MediatedClient): Exchange {
    const read = readRequest({
      ...{ method: request.method, target: request.target },
      header: (name) => headerOf(request, name),
    });
    return isRefusal(read)
      ? new Refused(this.#parts.admission, client, request, read)
      : new Handling(this.#parts, client, request, read);
  }
}

/** A request that cannot be read. */
class Refused implements Exchange {
  readonly collects = false;
  readonly decision: Decision;
  readonly #answer: Answer;

  constructor(
    admission: Admission,
    { admitted }: MediatedClient,
    { method, target }: Request,
    refusal: Refusal,
  ) {
    this.decision = admission.deny(admitted, `${method} ${target}`, refusal.message);
    this.#answer = answerTo(refusal);
  }

  decide(): Promise<Answer> {
    return Promise.resolve(this.#answer);
  }
}

/** The parts of a guard that all requests share. */
interface Parts {
  readonly admission: Admission;
  readonly upstream: Upstream;
  readonly engine: Engine;
  readonly owners: Owners;
  readonly objects: Objects;
  readonly hostPaths: HostPathRules;
  readonly learn: Recorder | undefined;
}

function answerTo({ status, message }: Refusal): Answer {
  // A path that the engine does not have is answered as the engine does.
  return status === 404
    ? { ...dockerAnswer(404, ""), body: JSON.stringify({ message }) }
    : dockerAnswer(status, message);
}

/** The filter of responses with status 200 or 201; `undefined` if they are forwarded unchanged. */
type Filter = ResponseFilter | undefined;

/** An action that the policy must allow for a request. */
type Step = Pick<LearnedRequest, "action" | "about"> & { readonly attributes: Attributes };

/** A decision that is not recorded yet. */
interface Pending {
  readonly decision: Decision;
  readonly attributes?: Attributes | undefined;
}

/** One request. */
class Handling implements Exchange {
  readonly collects: boolean;
  readonly #parts: Parts;
  readonly #client: MediatedClient;
  readonly #request: Request;
  readonly #read: DockerRequest;
  readonly #sight: Visibility;
  /** Ids of objects that the request names, which error responses may contain. */
  readonly #ownIds: string[] = [];
  decision: Decision | undefined;
  /** The last decision, until it is recorded: a later one replaces it. */
  #pending: Pending | undefined;
  /** The actions that the policy must allow for this request; `undefined` without a recording. */
  readonly #steps: Step[] | undefined;
  /** The recorded outcome of the steps; `undefined`: the request failed for another reason than the policy. */
  #verdict: "allowed" | "denied" | undefined = "allowed";

  constructor(parts: Parts, client: MediatedClient, request: Request, read: DockerRequest) {
    this.#parts = parts;
    this.#client = client;
    this.#request = request;
    this.#read = read;
    this.#steps = parts.learn === undefined ? undefined : [];
    this.collects = read.body === "none" || read.body === "json";
    this.#sight = new Visibility(client, parts.admission.policy, parts.objects);
  }

  async decide(bytes: Buffer): Promise<Answer | Forward> {
    try {
      return await this.#outcomeOf(bytes);
    } finally {
      this.#record();
      this.#learn();
    }
  }

  async #outcomeOf(bytes: Buffer): Promise<Answer | Forward> {
    const judged = readBody(this.#read, bytes);
    if (isRefusal(judged)) return this.#refuse(judged);
    const reserved = judged.labelNames.find((name) => name.startsWith(RESERVED_PREFIX)) ??
      this.#read.query.get("changes")?.find(mayLabel);
    if (reserved !== undefined) {
      const message = `Labels below ${RESERVED_PREFIX} are reserved: ${JSON.stringify(reserved)}`;
      return this.#refuse({ status: 400, message });
    }
    void this.#parts.owners.prune(this.#client);
    try {
      return await this.#handle(judged);
    } catch (error) {
      if (error instanceof Ended) return error.answer;
      this.#verdict = undefined;
      if (this.#client.socket.destroyed) throw error;
      this.#parts.upstream.reportFailure(error);
      this.#settle(false, `The engine cannot be used: ${textOf(error)}`);
      return dockerAnswer(502, "the engine cannot be used");
    }
  }

  #refuse(refusal: Refusal): Answer {
    this.#verdict = undefined;
    this.#settle(false, refusal.message);
    return answerTo(refusal);
  }

  /** Replaces the decision of the policy. */
  #settle(allowed: boolean, reason: string): void {
    this.decision = decisionWithout(allowed, reason);
    this.#pending = { decision: this.decision };
  }

  /**
   * Records the last decision. A request has one record, and a second one if it is denied after the guard has
   * changed something at the engine.
   */
  #record(): void {
    const pending = this.#pending;
    if (pending === undefined) return;
    this.#pending = undefined;
    const { decision, attributes } = pending;
    const logged = attributes && recordOf(attributes);
    const { admission } = this.#parts;
    admission.record(this.#client.admitted, this.#read.action, decision, attributes, logged);
  }

  /** Records the steps, all with the outcome of the request. */
  #learn(): void {
    const { learn } = this.#parts;
    const verdict = this.#verdict;
    if (learn === undefined || verdict === undefined) return;
    const { peer } = this.#client.admitted;
    for (const { action, attributes, about } of this.#steps!) {
      const kept = keptAttributes(action, attributes, this.#uid);
      learn.record(peer, { action, attributes: kept, about, allowed: verdict === "allowed" });
    }
  }

  /** The uid that owns what the client creates; `undefined` if the client's uid is ambiguous. */
  get #uid(): number | undefined {
    const { uid, ambiguous } = this.#client.admitted.peer;
    return ambiguous.includes("uid") ? undefined : uid;
  }

  async #handle(judged: JudgedRequest): Promise<Answer | Forward> {
    const { action, targets, route } = this.#read;
    switch (action) {
      case "system.ping":
        return this.#ping(judged);
      case "container.list":
      case "volume.list":
      case "network.list":
        return this.#list(judged, action.slice(0, action.indexOf(".")) as ObjectKind);
      case "container.prune":
      case "volume.prune":
      case "network.prune":
        return await this.#prune(judged, action.slice(0, action.indexOf(".")) as ObjectKind);
      case "system.events":
        return this.#events(judged);
      case "container.create":
        return await this.#createContainer(judged);
      case "volume.create":
      case "network.create":
        return await this.#createOther(judged, action === "volume.create" ? "volume" : "network");
      case "container.inspect":
        return await this.#inspect(judged);
      case "system.df":
        this.#permit(judged.attributes);
        return this.#forward(judged, {}, json((usage) => this.#sight.diskUsage(record(usage))));
      case "image.inspect": {
        this.#permit(judged.attributes);
        const isHidden = route.endsWith("/json") && !this.#sight.seesAll("container");
        return this.#forward(judged, {}, isHidden ? json(withoutContainer) : undefined);
      }
    }
    const [target] = targets;
    switch (target?.kind) {
      case "container":
      case "volume":
      case "network":
        return await this.#act(judged, target.kind, target.name);
      case "exec":
        return await this.#actOnExec(judged, target.name);
    }
    this.#permit(judged.attributes);
    const references = await this.#references(judged);
    return this.#forward(judged, { references });
  }

  // Decisions.

  /** Decides the request. */
  #decide(attributes: Attributes): Decision {
    const decision = this.#sight.decide(this.#read.action, attributes);
    this.decision = decision;
    this.#pending = { decision, attributes };
    if (!decision.allowed) this.#verdict = "denied";
    this.#steps?.push({ action: this.#read.action, attributes });
    return decision;
  }

  /** @throws {Ended} If the policy denies the request. */
  #permit(attributes: Attributes): void {
    const decision = this.#decide(attributes);
    if (!decision.allowed) throw new Ended(this.#denial(decision, attributes));
  }

  /** @throws {Ended} If the policy denies the request for every target. */
  #permitSome(attributes: Attributes): void {
    const { name: _, ...known } = attributes; // the request may name the object by its id
    const decision = this.#sight.decide(this.#read.action, known);
    if (decision.allowed || dependsOnAttributes(decision)) return;
    this.#permit(attributes);
  }

  #denial({ message }: Decision, attributes: Attributes, action = this.#read.action): Answer {
    const { dangers } = attributes;
    const fields = Array.isArray(dangers) && dangers.length > 0 ? `: ${dangers.join(", ")}` : "";
    const why = message === undefined ? "" : ` (${message})`;
    return dockerAnswer(403, `${action} is not allowed${fields}${why}`);
  }

  /** Denies the request although the policy allows it. */
  #deny(message: string): never {
    this.#verdict = undefined;
    return this.#forbid(message);
  }

  #forbid(message: string): never {
    this.#settle(false, message);
    throw new Ended(dockerAnswer(403, message));
  }

  /** Whether the client may create any container, which makes it equal to root. */
  get #isUnlimited(): boolean {
    return this.#sight.decide("container.create", {}).allowed;
  }

  /** @throws {Ended} If an action on a container could change files of the host as root. */
  #protectHost(container: Attributes, request: Attributes): void {
    const { peer } = this.#client.admitted;
    const problem = checkAction(this.#read.action, container, request, peer);
    // Tested last, because it needs a decision of the policy: few actions have a problem.
    if (problem !== undefined && !this.#isUnlimited) this.#deny(problem);
  }

  // Requests without a target.

  /** Forwards a ping unless a rule denies it: each client of Docker begins with one. */
  #ping(judged: JudgedRequest): Forward {
    const decision = this.#sight.decide("system.ping", {});
    if (decision.rule !== undefined) this.#permit({});
    return this.#forward(judged);
  }

  #list(judged: JudgedRequest, kind: ObjectKind): Forward {
    const sees = this.#scope(judged);
    const filter = kind === "container"
      ? json(async (list) => await this.#sight.containers(list))
      : kind === "network"
      ? json(async (list) => await this.#sight.networks(list))
      : json((list) => ({
        Volumes: this.#sight.volumes(fieldIn(list, "Volumes")),
        Warnings: null,
      }));
    if (sees === "all") {
      const isComplete = kind !== "network" || this.#sight.seesAll("container");
      return this.#forward(judged, {}, isComplete ? undefined : filter);
    }
    this.#refuseFilters();
    return this.#forward(judged, sees === "own" ? { filters: this.#ownFilter() } : {}, filter);
  }

  /**
   * Decides a request about all objects of a kind: "all" if the policy allows it for every object, "own" if
   * only the owner matters, "some" if other attributes do.
   */
  #scope({ attributes }: JudgedRequest): "all" | "own" | "some" {
    const { action } = this.#read;
    const decision = this.#sight.decide(action, attributes);
    if (!decision.allowed && dependsOnAttributes(decision)) {
      const own = { ...attributes, owner: this.#uid };
      const others = this.#sight.decide(action, { ...attributes, owner: NO_OWNER });
      const isOwn = !others.allowed && !dependsOnAttributes(others);
      if (isOwn && this.#sight.decide(action, own).allowed) {
        this.#permit(own);
        return "own";
      }
      this.#settle(true, "It is allowed for some objects");
      this.#steps?.push({ action, attributes, about: "some" });
      return "some";
    }
    this.#permit(attributes);
    return "all";
  }

  #ownFilter(): Replacements["filters"] {
    return { label: [`${OWNER_LABEL}=${this.#uid}`] };
  }

  /** The filters of the request. Its reader has written them in one of their two forms. */
  get #filters(): { readonly [name: string]: readonly string[] } {
    return JSON.parse(this.#read.query.get("filters")?.[0] || "{}");
  }

  #refuseFilters(): void {
    const names = [...this.#read.query.keys(), ...Object.keys(this.#filters)];
    const found = FILTERS_BY_OBJECT.find((name) => names.includes(name));
    if (found !== undefined) this.#deny(`the filter ${found} needs the right to list all objects`);
  }

  async #prune(judged: JudgedRequest, kind: ObjectKind): Promise<Answer | Forward> {
    const scope = this.#scope(judged);
    if (scope === "all") return this.#forward(judged);
    if (scope === "some") this.#deny("this needs the right to remove all objects, or own ones");
    // A container inherits the labels of its image, so its label may be forged. Networks and volumes have only
    // the guard's.
    if (kind !== "container") return this.#forward(judged, { filters: this.#ownFilter() });
    const { label: labels = [], ...others } = this.#filters;
    if (Object.keys(others).length > 0) {
      this.#deny("only the filter label is possible for own containers");
    }
    this.#record(); // before the first removal
    const filters = JSON.stringify({
      status: ["created", "exited", "dead"],
      label: [...labels, `${OWNER_LABEL}=${this.#uid}`],
    });
    const { engine, objects, owners } = this.#parts;
    const list = `/containers/json?all=1&filters=${encodeURIComponent(filters)}`;
    const removed: string[] = [];
    for (const item of records(await engine.inspect(this.#client, list))) {
      const listed = await objects.listed(this.#client, item);
      const { id, owner } = listed;
      if (owner !== this.#uid) continue;
      objects.leaving(id as string, listed);
      const { status } = await engine.query(this.#client, "DELETE", `/containers/${id}`);
      if (status !== 204) continue; // it runs again, for example
      owners.removed(id as string);
      removed.push(id as string);
    }
    return {
      ...{ status: 200, title: "OK", type: "application/json" },
      body: JSON.stringify({ ContainersDeleted: removed, SpaceReclaimed: 0 }),
    };
  }

  #events(judged: JudgedRequest): Forward {
    this.#permit(judged.attributes);
    const kinds = ["container", "volume", "network", "image"] as const;
    if (kinds.every((kind) => this.#sight.seesAll(kind))) return this.#forward(judged);
    return this.#forward(judged, {}, {
      kind: "lines",
      run: (line) => this.#sight.event(line),
    });
  }

  // Objects that the request creates.

  #labels(): Replacements["labels"] {
    const uid = this.#uid;
    return uid === undefined ? undefined : { [OWNER_LABEL]: String(uid) };
  }

  async #createContainer(judged: JudgedRequest): Promise<Forward> {
    const uid = this.#uid;
    // The attributes lack `owner`: a rule about a user's own containers must not allow every new one.
    this.#permit(judged.attributes);
    const joined: string[] = [];
    const references = await this.#references(judged, joined);
    if (!this.#isUnlimited) {
      const { peer } = this.#client.admitted;
      const { hostPaths, admission } = this.#parts;
      // Through the guard's own socket, root of the container would be root to the guard.
      const never = [...hostPaths.never, admission.server];
      const problem = await checkHostPaths({ never }, judged.attributes, joined, peer);
      if (problem !== undefined) this.#deny(problem);
    }
    return this.#forward(judged, { references, labels: this.#labels() }, {
      kind: "whole",
      run: async (body) => {
        const id = fullIdIn(jsonOf(body), "Id", "a container");
        if (uid !== undefined) this.#parts.owners.created(id, uid);
        return await Promise.resolve(body);
      },
    });
  }

  async #createOther(judged: JudgedRequest, kind: "volume" | "network"): Promise<Forward> {
    this.#permit(judged.attributes);
    const { name } = judged.attributes;
    // The engine answers with an existing volume, also of another user.
    if (kind === "volume" && typeof name === "string") {
      const found = await this.#parts.objects.find(this.#client, kind, name);
      if (found !== undefined && !this.#sight.sees(kind, found.attributes)) {
        this.#deny("the name is taken");
      }
    }
    return this.#forward(judged, { labels: this.#labels() });
  }

  // Objects that exist.

  /** Finds an object that the request names. */
  async #find(kind: ObjectKind, name: string): Promise<FoundObject | undefined> {
    const found = await this.#parts.objects.find(this.#client, kind, name);
    if (found !== undefined) this.#ownIds.push(found.id);
    return found;
  }

  /** Ends a request about an object that does not exist. */
  async #absent(
    kind: ObjectKind | "exec",
    name: string,
    action: string = this.#read.action,
  ): Promise<never> {
    this.#settle(false, `There is no ${kind} of this ${kind === "exec" ? "id" : "name"}`);
    this.#steps?.push({ action, attributes: {}, about: "absent" });
    return await this.#hide(kind, name);
  }

  /** Ends a request with the response of the engine for an object that does not exist. */
  async #hide(kind: ObjectKind | "exec", name: string): Promise<never> {
    throw new Ended(await this.#parts.objects.absent(this.#client, kind, name));
  }

  /**
   * Decides an action on an object, or on an exec in a container.
   *
   * @param found The object, or the container of the exec.
   * @throws {Ended} 403, or 404 if the client does not see it.
   */
  async #permitOn(
    kind: ObjectKind | "exec",
    name: string,
    found: FoundObject | undefined,
    attributes: Attributes,
  ): Promise<FoundObject> {
    if (found === undefined) {
      return await this.#absent(kind, name);
    }
    const decision = this.#decide(attributes);
    if (decision.allowed) return found;
    if (!this.#sight.sees(found.kind, found.attributes)) await this.#hide(kind, name);
    throw new Ended(this.#denial(decision, attributes));
  }

  async #inspect(judged: JudgedRequest): Promise<Answer> {
    const { name } = this.#read.targets[0]!;
    this.#permitSome(judged.attributes);
    const query = this.#read.query.get("size")?.[0] === "1" ? "?size=1" : "";
    const version = this.#read.version === undefined ? "" : `/v${this.#read.version}`;
    const found = await this.#parts.objects.find(this.#client, "container", name, query, version);
    const attributes = found === undefined ? {} : attributesOn(found, judged);
    const { response } = await this.#permitOn("container", name, found, attributes);
    return {
      ...{ status: 200, title: response.reason, type: "application/json" },
      body: response.body.toString(),
      lines: keptLines(response),
    };
  }

  async #act(judged: JudgedRequest, kind: ObjectKind, name: string): Promise<Answer | Forward> {
    this.#permitSome(judged.attributes);
    const found = await this.#find(kind, name);
    const attributes = found === undefined ? {} : attributesOn(found, judged);
    const { id, attributes: object } = await this.#permitOn(kind, name, found, attributes);
    if (kind === "container") this.#protectHost(object, attributes);
    if (this.#read.action === "container.remove") this.#parts.objects.leaving(id, object);
    const references = await this.#references(judged);
    const [, ...others] = this.#read.targets;
    const targets = [id, ...others.map(({ name }) => name)];
    const isHead = this.#request.method === "HEAD";
    return this.#forward(judged, { targets, references }, this.#filterOf(id, judged, isHead));
  }

  #filterOf(id: string, judged: JudgedRequest, isHead: boolean): Filter {
    if (isHead) return undefined;
    switch (this.#read.action) {
      case "container.exec":
        return {
          kind: "whole",
          run: (body) => {
            const exec = fullIdIn(jsonOf(body), "Id", "an exec");
            const { attributes } = judged;
            this.#parts.owners.prepared(exec, { container: id, uid: this.#uid, attributes });
            return Promise.resolve(body);
          },
        };
      case "network.inspect":
        return this.#sight.seesAll("container")
          ? undefined
          : json(async (network) => await this.#sight.network(record(network)));
    }
    return undefined;
  }

  async #actOnExec(judged: JudgedRequest, name: string): Promise<Answer | Forward> {
    this.#permitSome(judged.attributes);
    const exec = await this.#execOf(name);
    // Only its owner may use an exec, which may be privileged, unless the policy allows all execs.
    const isOwn = exec?.uid !== undefined && exec.uid === this.#uid;
    const isAllowed = isOwn || this.#sight.decide(this.#read.action, {}).allowed;
    const found = exec === undefined || !isAllowed
      ? undefined
      : await this.#find("container", exec.container);
    const known = { ...judged, attributes: { ...judged.attributes, ...exec?.attributes } };
    const attributes = found === undefined ? {} : attributesOn(found, known);
    const container = await this.#permitOn("exec", name, found, attributes);
    this.#protectHost(container.attributes, attributes);
    this.#ownIds.push(name);
    return this.#forward(judged, { targets: [name] });
  }

  async #execOf(id: string): Promise<Exec | undefined> {
    const { engine, owners } = this.#parts;
    const known = owners.execOf(id);
    if (known?.attributes !== undefined || !isFullId(id)) return known;
    const object = await engine.inspect(this.#client, pathOf("exec", id));
    if (object === undefined) return undefined;
    const container = fullIdIn(object, "ContainerID", "a container");
    if (known !== undefined && known.container !== container) return undefined;
    return { container, uid: known?.uid, attributes: attributesOfExec(object) };
  }

  /**
   * Resolves and decides the objects that fields name.
   *
   * @param joined Receives the writable mounts of the host in the containers that are named.
   * @throws {Ended} If one of them is denied.
   */
  async #references(
    judged: JudgedRequest,
    joined: string[] = [],
  ): Promise<ReadonlyMap<Reference, string>> {
    const ids = new Map<Reference, string>();
    for (const reference of judged.references) {
      const { kind, name, action, path } = reference;
      if (kind === "image" || action === undefined) continue;
      if (kind === "network" && BUILT_IN_NETWORKS.has(name)) continue;
      let found = await this.#find(kind, name);
      if (found === undefined && kind === "volume") found = await this.#createVolume(name, path);
      if (found === undefined) return await this.#absent(kind, name, action);
      const attributes = { ...found.attributes, dangers: [] };
      this.#steps?.push({ action, attributes });
      if (!this.#sight.decide(action, attributes).allowed) {
        const denial = `${action} is not allowed: ${path}`;
        this.#verdict = "denied";
        const isSeen = this.#sight.sees(kind, found.attributes);
        // A volume cannot be hidden by "no such volume": the engine would create a missing volume instead.
        if (!isSeen && kind !== "volume") {
          this.#settle(false, denial);
          return await this.#hide(kind, name);
        }
        this.#forbid(denial);
      }
      ids.set(reference, found.id);
      const writable = found.attributes["writableBinds"];
      if (Array.isArray(writable)) joined.push(...writable);
    }
    return ids;
  }

  /** Creates a volume that the engine would create without an owner. */
  async #createVolume(name: string, path: string): Promise<FoundObject> {
    const attributes = { name, driver: "local", driverOpts: [], labels: {}, dangers: [] };
    const action = "volume.create";
    const decision = this.#sight.decide(action, attributes);
    this.#steps?.push({ action, attributes });
    if (!decision.allowed || !isNameOf("volume", name)) {
      this.#verdict = "denied";
      this.#forbid(`${action} is not allowed: ${path}`);
    }
    this.#record();
    const { engine, admission } = this.#parts;
    admission.record(this.#client.admitted, action, decision, attributes, recordOf(attributes));
    const body = JSON.stringify({ Name: name, Labels: this.#labels() ?? {} });
    const { status } = await engine.query(this.#client, "POST", "/volumes/create", body);
    if (status !== 200 && status !== 201) throw new Error(`it answers ${status} to a new volume`);
    const found = await this.#find("volume", name);
    if (found === undefined) throw new Error("it does not have the volume that it has created");
    return found;
  }

  // Forwarding.

  #forward(judged: JudgedRequest, replacements: Replacements = {}, filter?: Filter): Forward {
    const written = writeRequest(judged, replacements);
    if (isRefusal(written)) throw new Ended(dockerAnswer(written.status, written.message));
    const { target, contentType, body } = written;
    const isRead = this.#read.body === "none" || this.#read.body === "json";
    const lines = this.#request.lines.filter((line) => !DROPPED.test(line));
    if (contentType !== undefined) lines.push(`Content-Type: ${contentType}\r\n`);
    return {
      ...{ url: target, lines },
      body: isRead ? Buffer.from(body ?? "") : undefined,
      upgrade: this.#upgrade(),
      filter: (response) => this.#filter(response, filter),
    };
  }

  /** The protocol of an upgrade, where the route has one. */
  #upgrade(): string | undefined {
    if (this.#read.stream !== "upgrade") return undefined;
    const { upgrade } = this.#request;
    const protocol = this.#read.action === "build.session"
      ? "h2c"
      : this.#read.route.endsWith("/ws")
      ? "websocket"
      : "tcp";
    return upgrade?.toLowerCase() === protocol ? upgrade : undefined;
  }

  #filter(response: Response, filter: Filter): Filter {
    const { status, lines } = response;
    if (status < 400) {
      this.#forget(status);
      const isEncoded = lines.some((line) => /^content-encoding:/i.test(line));
      if (filter !== undefined && isEncoded) {
        return { kind: "whole", run: () => Promise.reject(new Error("its response is encoded")) };
      }
      if (filter === undefined || status === 200 || status === 201) return filter;
      const run = () => Promise.reject(new Error(`it answers ${status} instead of 200`));
      return { kind: "whole", run };
    }
    if (this.#sight.seesAll("container") || this.#request.method === "HEAD") return undefined;
    const { action, targets } = this.#read;
    const isOwn = targets[0]?.kind === "container" && action !== "container.rename";
    return {
      kind: "whole",
      run: (body) => {
        const { reason } = response;
        return Promise.resolve(withoutOthers(status, reason, body, this.#ownIds, !isOwn));
      },
    };
  }

  #forget(status: number): void {
    if (this.#read.action !== "container.remove" || status !== 204) return;
    for (const id of this.#ownIds) this.#parts.owners.removed(id);
  }
}

/** Whether an instruction of a Dockerfile may set a label of the guard, also by a variable or quotes. */
function mayLabel(change: string): boolean {
  const isPlain = !/[$\\]/.test(change) &&
    !change.replaceAll(/["']/g, "").includes(RESERVED_PREFIX);
  return /^\s*(onbuild\s+)*label\b/i.test(change) && !isPlain;
}

/** Header fields that are not forwarded. Responses must not be encoded, since some are read. */
const DROPPED = /^(content-type|accept-encoding|accept|connection|x-ucred-[^:]*):/i;

/** Returns a filter that replaces a JSON response. */
function json(change: (value: unknown) => unknown): ResponseFilter {
  return {
    kind: "whole",
    run: async (body) => Buffer.from(JSON.stringify(await change(jsonOf(body)))),
  };
}

/** Returns a header field; several lines are joined. */
function headerOf({ lines }: Request, name: string): string | undefined {
  const values = lines.filter((line) => line.slice(0, line.indexOf(":")).toLowerCase() === name)
    .map((line) => line.slice(line.indexOf(":") + 1).trim());
  return values.length === 0 ? undefined : values.join(", ");
}

/** The attributes of an action on an object: those of the object, and those of the request. */
function attributesOn({ attributes }: FoundObject, judged: JudgedRequest): Attributes {
  const { id, name, owner, labels, image, privileged } = attributes;
  return {
    ...attributes,
    ...judged.attributes,
    // The request cannot change what the object is.
    ...{ id, name, labels, owner },
    ...(image !== undefined && { image }),
    // A command in a privileged container has the same rights.
    ...(privileged === true && { privileged: true }),
  };
}

/** The attributes of an exec that was prepared before the guard was restarted. */
function attributesOfExec(object: unknown): JsonObject {
  const config = objectIn(object, "ProcessConfig") ?? {};
  const { privileged, user, entrypoint, arguments: given } = config;
  return {
    ...(typeof privileged === "boolean" && { privileged }),
    dangers: privileged === false ? [] : ["Privileged"],
    ...(typeof entrypoint === "string" && Array.isArray(given) &&
      { command: [entrypoint, ...given] }),
    // Without a user, it is the container's.
    ...(user !== "" && idsOf(typeof user === "string" ? user : "")),
  };
}
