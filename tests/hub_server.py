"""A stand-in hub: a real HTTP server that keeps dataset repositories in memory.

It speaks what `huggingface_hub` needs for `create_repo`, `upload_folder`, `list_repo_files` and
`hf_hub_download` of datasets: small files in the commit, large ones through LFS. It does not speak
xet.
"""

import asyncio
import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any, Self

import yaml
from aiohttp import web

TOKEN = "hf_letmein"
READ_ONLY = "hf_onlylook"


@dataclass
class Repo:
    """One dataset repository: its commits, newest last."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], message: str) -> str:
        self.messages.append(message)
        names = [(n, hashlib.sha256(b).hexdigest()) for n, b in sorted(files.items())]
        text = json.dumps([names, len(self.commits), message])
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha] = files
        return sha

    def at(self, revision: str) -> tuple[str, dict[str, bytes]]:
        sha = list(self.commits)[-1] if revision == "main" else revision
        return sha, self.commits[sha]


class HubServer:
    """The hub, on a free loopback port, in a thread of its own."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.tokens: set[str] = set()
        self.broken: str | None = None
        """A path pattern that answers 500."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, name: str, files: dict[str, bytes]) -> str:
        """Put files into a repository; return the commit."""
        repo = self.repos.setdefault(name, Repo(private=False))
        return repo.commit(files, "added by hand")

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run(started))
        self._loop.close()

    async def _run(self, started: threading.Event) -> None:
        self._stop = asyncio.Event()
        app = web.Application(middlewares=[self._watch], client_max_size=1 << 30)
        repo = "{owner}/{name}"
        app.add_routes(
            [
                web.get("/api/whoami-v2", self._whoami),
                web.post("/api/repos/create", self._create),
                web.post("/api/validate-yaml", self._validate),
                web.post(f"/api/datasets/{repo}/preupload/{{revision}}", self._preupload),
                web.post(f"/api/datasets/{repo}/commit/{{revision}}", self._commit),
                web.get(f"/api/datasets/{repo}/tree/{{revision}}", self._tree),
                web.get(f"/api/datasets/{repo}/revision/{{revision}}", self._info),
                web.get(f"/api/datasets/{repo}", self._info),
                web.post(f"/datasets/{repo}.git/info/lfs/objects/batch", self._batch),
                web.put("/lfs/{oid}", self._put),
                web.get(f"/datasets/{repo}/resolve/{{revision}}/{{path:.+}}", self._resolve),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        started.set()
        await self._stop.wait()
        await runner.cleanup()

    @web.middleware
    async def _watch(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.tokens.add(given)
        if self.broken and fnmatch(request.path, self.broken):
            return web.json_response({"error": "out of order"}, status=500)
        if request.method == "POST" and given not in (TOKEN, READ_ONLY):
            return web.json_response({"error": "Invalid token"}, status=401)
        if request.method == "POST" and given == READ_ONLY:
            return web.json_response({"error": "You may not write"}, status=403)
        try:
            return await handler(request)
        except KeyError:
            code = "RepoNotFound" if self._name(request) not in self.repos else "RevisionNotFound"
            return web.json_response(
                {"error": "not found"}, status=404, headers={"X-Error-Code": code}
            )

    @staticmethod
    def _name(request: web.Request) -> str:
        return f"{request.match_info.get('owner')}/{request.match_info.get('name')}"

    def _at(self, request: web.Request) -> tuple[str, dict[str, bytes]]:
        return self.repos[self._name(request)].at(request.match_info.get("revision", "main"))

    async def _whoami(self, request: web.Request) -> web.Response:
        return web.json_response({"name": "me", "type": "user", "orgs": []})

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = f"{body.get('organization') or 'me'}/{body['name']}"
        assert body["type"] == "dataset"
        url = f"{self.url}/datasets/{name}"
        if name in self.repos:
            return web.json_response({"error": "exists", "url": url}, status=409)
        private = body.get("visibility") == "private" or bool(body.get("private"))
        self.repos[name] = Repo(private)
        self.repos[name].commit({".gitattributes": b"*.parquet filter=lfs\n"}, "initial commit")
        return web.json_response({"url": url, "name": name, "id": name})

    async def _validate(self, request: web.Request) -> web.Response:
        content = (await request.json())["content"]
        if not content.startswith("---\n"):
            errors = [{"message": "no metadata"}]
            return web.json_response({"errors": errors, "warnings": []}, status=400)
        return web.json_response({"errors": [], "warnings": []})

    async def _preupload(self, request: web.Request) -> web.Response:
        files = [
            {
                "path": f["path"],
                "uploadMode": "lfs" if f["path"].endswith(".parquet") else "regular",
                "shouldIgnore": False,
            }
            for f in (await request.json())["files"]
        ]
        return web.json_response({"files": files})

    async def _batch(self, request: web.Request) -> web.Response:
        objects = []
        for wanted in (await request.json())["objects"]:
            entry: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.objects:
                entry["actions"] = {"upload": {"href": f"{self.url}/lfs/{wanted['oid']}"}}
            objects.append(entry)
        return web.json_response({"transfer": "basic", "objects": objects})

    async def _put(self, request: web.Request) -> web.Response:
        content = await request.read()
        assert hashlib.sha256(content).hexdigest() == request.match_info["oid"]
        self.objects[request.match_info["oid"]] = content
        return web.Response()

    async def _commit(self, request: web.Request) -> web.Response:
        _, files = self._at(request)
        files = dict(files)
        message = ""
        for line in (await request.text()).splitlines():
            entry = json.loads(line)
            value = entry["value"]
            match entry["key"]:
                case "header":
                    message = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.objects[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
                case other:
                    raise AssertionError(other)
        sha = self.repos[self._name(request)].commit(files, message)
        url = f"{self.url}/datasets/{self._name(request)}/commit/{sha}"
        return web.json_response({"success": True, "commitOid": sha, "commitUrl": url})

    async def _tree(self, request: web.Request) -> web.Response:
        _, files = self._at(request)
        return web.json_response(
            [
                {
                    "type": "file",
                    "path": name,
                    "size": len(content),
                    "oid": hashlib.sha1(content).hexdigest(),
                }
                for name, content in sorted(files.items())
            ]
        )

    async def _info(self, request: web.Request) -> web.Response:
        sha, files = self._at(request)
        name = self._name(request)
        siblings = [{"rfilename": n} for n in sorted(files)]
        return web.json_response(
            {
                "id": name, "sha": sha, "private": self.repos[name].private, "siblings": siblings,
                "cardData": self._metadata(files),
                "downloads": 0, "likes": 0, "tags": [], "gated": False, "disabled": False,
            }
        )  # fmt: skip

    @staticmethod
    def _metadata(files: dict[str, bytes]) -> Any:
        """Return what stands between the dashes of the README, as the hub does."""
        _, *parts = files.get("README.md", b"").decode().split("---\n")
        return yaml.safe_load(parts[0]) if parts else None

    async def _resolve(self, request: web.Request) -> web.Response:
        sha, files = self._at(request)
        content = files.get(request.match_info["path"])
        if content is None:
            headers = {"X-Error-Code": "EntryNotFound"}
            return web.json_response({"error": "no such entry"}, status=404, headers=headers)
        headers = {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        return web.Response(body=content, headers=headers)
