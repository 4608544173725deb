"""The files of deploy/ fit the server they are for: flags, times, ports, paths.

Strategy: the files are read as what they are (units, a Dockerfile, a manifest, proxies' settings),
and each number and flag in them is held against the code that it depends on. That the proxies do
what they should is shown in tests/e2e/test_deploy_proxies.py, and that the commands run in
tests/e2e/test_deploy_units.py. There is no Docker engine and no cluster behind these tests.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from deployed import DEPLOY, ROOT, dockerfile, image_environ, manifest, unit
from test_docs import parse

from h3trio import Settings
from h3trio._cli.common import EXIT_USAGE
from h3trio._cli.options import Options
from h3trio._cli.serve.command import add_arguments
from h3trio._redis.address import parse_address
from h3trio.hubserver import parse_key

if TYPE_CHECKING:
    import argparse

GRACE = 5
"""Seconds after a late drain in which the command line ends the process itself."""
SETTINGS = Settings()
DRAIN = SETTINGS.drain_soft + SETTINGS.drain_hard + GRACE


def read(path: str) -> str:
    """Return the text of a file below deploy/."""
    return (DEPLOY / path).read_text(encoding="utf-8")


def seconds(pattern: str, text: str) -> list[int]:
    """Find the values of a setting."""
    found = [int(value) for value in re.findall(rf"^\s*{pattern}\s+(\d+)s;?$", text, re.MULTILINE)]
    assert found, pattern
    return found


# -- proxies


@pytest.mark.parametrize(
    ("path", "setting"),
    [
        ("nginx/h3trio.conf", "proxy_read_timeout"),
        ("haproxy/haproxy.cfg", "timeout client"),
        ("haproxy/haproxy.cfg", "timeout server"),
    ],
)
def test_a_quiet_stream_outlives_a_proxys_patience(path: str, setting: str) -> None:
    """A proxy waits for longer than two heartbeats before it ends a silent stream."""
    assert min(seconds(setting, read(path))) > 2 * SETTINGS.heartbeat_interval


def test_proxies_let_go_of_idle_connections_first() -> None:
    """A proxy reuses no connection to the hub that the hub may be closing."""
    (kept,) = seconds("keepalive", read("caddy/Caddyfile"))
    assert kept < SETTINGS.keepalive_timeout
    # nginx's own default, which its file relies on, is 60 s.
    assert "keepalive_timeout" not in re.sub("#.*", "", read("nginx/h3trio.conf"))
    assert SETTINGS.keepalive_timeout > 60


@pytest.mark.parametrize("path", ["nginx/h3trio.conf", "haproxy/haproxy.cfg", "caddy/Caddyfile"])
def test_proxies_are_believed(path: str) -> None:
    """A proxy's file is right in what it says of the hub's flags."""
    flags = re.findall(r"--[\w-]+(?: [\d.]+)?", read(path))
    assert flags[0] == "--forwarded-allow-ips 127.0.0.1"
    parse(["serve", *shlex.split(" ".join(flags))])


# -- systemd


def test_units_fit_the_server() -> None:
    """The service's command is one that parses, and it is given the time that a drain may take."""
    service, sock = unit("h3trio.service"), unit("h3trio.socket")
    (command,) = service["ExecStart"]
    python, *rest = command.split()
    assert python.endswith("/bin/python")
    arguments = parse(rest[2:])
    assert rest[:2] == ["-m", "h3trio"]
    assert arguments.forwarded_allow_ips == "127.0.0.1,unix"
    assert service["Type"] == ["notify"]
    assert service["Requires"] == ["h3trio.socket"]
    assert int(service["TimeoutStopSec"][0]) > DRAIN
    assert int(service["WatchdogSec"][0]) > DRAIN, "a drain feeds it, and a slow start may not"
    (name, _, _path) = service["LoadCredential"][0].partition(":")
    assert arguments.jwt_key_file == f"%d/{name}"
    assert arguments.store == f"sqlite:%S/{service['StateDirectory'][0]}/hub.db"
    assert sock["ListenStream"] == ["127.0.0.1:3000"]


def test_the_service_on_redis_differs_in_its_store_alone() -> None:
    """What is added for Redis is a command that parses, with a password and a network."""
    service, added = unit("h3trio.service"), unit("redis.conf")
    emptied, command = added["ExecStart"]
    assert emptied == "", "systemd would run both"
    command = command.replace("%d", "/run").replace("%H", "web-1.example")
    arguments = parse(command.split()[3:])
    own = parse(service["ExecStart"][0].replace("%d", "/run").split()[3:])
    assert {name for name, value in vars(arguments).items() if value != vars(own).get(name)} == {
        "store",
        "node",
    }
    url, _, option = arguments.store.partition("?")
    address = parse_address(url)
    (credential,) = added["LoadCredential"]
    assert option == f"password-file=/run/{credential.partition(':')[0]}"
    assert (address.login.user, address.tls) == ("h3trio", None)
    assert service["PrivateNetwork"] + added["PrivateNetwork"] == ["yes", "no"]
    assert {"AF_INET", "AF_INET6"} == set(added["RestrictAddressFamilies"][0].split())


def test_the_service_comes_back() -> None:
    """Systemd tries a start again for ever, unless it can't succeed; no metric is hidden."""
    service = unit("h3trio.service")
    assert service["RestartPreventExitStatus"] == [str(EXIT_USAGE)]
    assert service["Restart"] == ["always"]
    assert service["StartLimitIntervalSec"] == ["0"]
    # It would hide /proc/stat and such, which prometheus-client reads.
    assert "ProcSubset" not in service


# -- Docker


def test_the_image_is_built_from_what_is_there() -> None:
    """The image copies what a wheel is made of, and ignores none of it."""
    copied = {
        source
        for name, words in dockerfile()
        if name == "COPY" and not words[0].startswith("--from")
        for source in words[:-1]
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = {"pyproject.toml", "src", project["readme"], *project["license-files"]}
    assert copied == needed
    ignored, *kept = [
        line for line in read("docker/Dockerfile.dockerignore").splitlines() if line[:1] != "#"
    ]
    assert ignored == "*"
    assert {line[1:] for line in kept if line.startswith("!")} == copied
    (install,) = [words for name, words in dockerfile() if name == "RUN" and "pip" in words]
    assert extras(install[-1]) <= project["optional-dependencies"].keys()


def extras(installed: str) -> set[str]:
    """Return the extras that are installed, out of the last word of a command of pip's."""
    (found,) = re.findall(r"\[(.+)\]$", installed)
    return set(found.split(","))


def test_metrics_and_tokens_are_installed() -> None:
    """The image, and what systemd starts, have what `/metrics` and tokens need."""
    (install,) = [words for name, words in dockerfile() if name == "RUN" and "pip" in words]
    lines = re.findall(r"/opt/h3trio/bin/pip install (.+)", read("README.md"))
    by_hand, shared = (extras(*shlex.split(line)) for line in lines)
    assert by_hand == {"hub", "auth"}
    assert extras(install[-1]) == shared == by_hand | {"redis"}
    assert "with the extras `hub` and `auth`;" in read("systemd/h3trio.service")


def test_the_image_runs_as_nobody_in_particular() -> None:
    """The image's user is a number and not root's, and owns the place of the store."""
    steps = dockerfile()
    (user,) = [words[0] for name, words in steps if name == "USER"]
    uid, gid = map(int, user.split(":"))
    assert uid > 0
    assert gid > 0
    (made,) = [words for name, words in steps if name == "RUN" and words[0] == "install"]
    assert {f"--owner={uid}", f"--group={gid}"} < set(made)
    (volume,) = [words[0] for name, words in steps if name == "VOLUME"]
    assert made[-1] == volume
    assert image_arguments().store.startswith(f"sqlite:{volume}/")


def image_arguments(*argv: str) -> argparse.Namespace:
    """Parse as the image's command does, with its environment and these arguments behind it."""
    (words,) = [words for name, words in dockerfile() if name == "ENTRYPOINT"]
    assert words[1:] == ["-m", "h3trio", "serve"], "flags would be beyond `docker run -e`"
    parser = Options(prog="serve")
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    parser.complete(arguments, image_environ())
    return arguments


def test_the_image_stops_as_it_should() -> None:
    """The signal reaches the server itself, and Docker is told to wait for the drain."""
    steps = dict(dockerfile())
    assert steps["STOPSIGNAL"] == ["SIGTERM"]
    assert steps["EXPOSE"] == [str(image_arguments().port)]
    (health,) = [words for name, words in dockerfile() if name == "HEALTHCHECK"]
    assert health[1:] == ["-m", "h3trio", "health"]
    (wait,) = re.findall(r"--stop-timeout (\d+)", read("docker/Dockerfile"))
    assert int(wait) > DRAIN


# -- Kubernetes


def pod() -> dict[str, Any]:
    """Return the pod of the manifest."""
    spec: dict[str, Any] = manifest("StatefulSet")["spec"]["template"]["spec"]
    return spec


def test_the_pod_fits_the_image() -> None:
    """The arguments parse behind the image's own; ports, user, key and store are the image's."""
    (container,) = pod()["containers"]
    arguments = image_arguments(*container["args"])
    assert arguments.allow_anonymous_operate, "the kubelet's probes come from elsewhere"
    assert [port["containerPort"] for port in container["ports"]] == [arguments.port]
    (user,) = [words[0] for name, words in dockerfile() if name == "USER"]
    security = pod()["securityContext"]
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == user
    assert str(security["fsGroup"]) == user.partition(":")[2]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["key"] == arguments.jwt_key_file
    assert arguments.store.startswith(f"sqlite:{mounts['events']}/")
    claims = manifest("StatefulSet")["spec"]["volumeClaimTemplates"]
    volumes = [*pod()["volumes"], *(claim["metadata"] for claim in claims)]
    assert {volume["name"] for volume in volumes} == mounts.keys()


def test_the_pod_has_time_to_drain() -> None:
    """Kubernetes kills it after the hub has ended, whatever happens, and not before."""
    (container,) = pod()["containers"]
    program, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert pod()["terminationGracePeriodSeconds"] > int(pause) + DRAIN


def test_the_service_is_no_setting() -> None:
    """The address of the service, which has the name of our variables, stays out of the pod."""
    assert manifest("Service")["metadata"]["name"] == "h3trio"
    assert pod()["enableServiceLinks"] is False


def test_one_pod_owns_the_store() -> None:
    """There is one replica, which the Service finds, by the port's name."""
    spec = manifest("StatefulSet")["spec"]
    assert spec["replicas"] == 1
    labels = spec["template"]["metadata"]["labels"]
    service = manifest("Service")
    assert spec["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    assert spec["serviceName"] == service["metadata"]["name"]
    (container,) = pod()["containers"]
    names = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == names


def test_the_key_must_be_replaced() -> None:
    """The key in the manifest is none, so that a hub with a well-known key can't be started."""
    (name,) = manifest("Secret")["stringData"]
    key: str = manifest("Secret")["stringData"][name]
    with pytest.raises(ValueError, match="bytes"):
        parse_key(key.encode())
    (mount,) = [m for m in pod()["containers"][0]["volumeMounts"] if m["name"] == "key"]
    assert mount["subPath"] == name


# -- Prometheus


def test_the_alerts_are_about_metrics_that_there_are() -> None:
    """Each metric in the rules is one that a hub shows, and each page that they name is there."""
    (group,) = yaml.safe_load(read("prometheus/h3trio.rules.yml"))["groups"]
    page = (ROOT / "docs/reference/monitoring.md").read_text("utf-8")
    for rule in group["rules"]:
        names = set(re.findall(r"h3trio_\w+", rule["expr"]))
        assert names or rule["expr"].startswith("up{"), rule["alert"]
        for name in names:
            # tests/metrics holds that page against what a hub shows.
            assert re.search(rf"`{name.removesuffix('_bucket')}\b", page), name
        pages = re.findall(r"docs/[\w/.-]+\.md", rule["annotations"]["summary"])
        assert all((ROOT / page).is_file() for page in pages)
