#!/usr/bin/env python3
"""Runs every script of tests/apps/cases in a container under runc and under our runsc, and compares.

  run.py --rootfs DIR --runsc BIN [--platform systrap] [NAME ...]

A case passes when output and exit status are the same under both. Where runc is missing, a plain
chroot in fresh namespaces stands in. Prints "ok NAME (runc s, ours s)" or "not ok NAME" and a diff.
"""
import argparse, difflib, json, os, shlex, shutil, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
CAPS = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER",
        "CAP_FSETID", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_SETFCAP"]


def bundle(rootfs, script):
    d = tempfile.mkdtemp(prefix="apps.")

    def mount(dst, kind, opts):
        return {"destination": dst, "type": kind, "source": kind, "options": opts}
    config = {
        "ociVersion": "1.0.2", "hostname": "apps",
        "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/tmp", "terminal": False,
                    "args": ["/bin/bash", "-c", script],
                    "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
                            "LC_ALL=C.UTF-8"],
                    "capabilities": {k: CAPS for k in ("bounding", "effective", "permitted")},
                    "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 4096, "soft": 1024}]},
        "root": {"path": rootfs, "readonly": False},
        "mounts": [mount("/proc", "proc", []), mount("/dev", "tmpfs", ["nosuid", "mode=755"]),
                   mount("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
                   mount("/dev/shm", "tmpfs", ["nosuid", "nodev", "mode=1777"]),
                   mount("/tmp", "tmpfs", ["nosuid", "nodev", "mode=1777"]),
                   mount("/root", "tmpfs", ["mode=700"]),
                   mount("/sys", "sysfs", ["nosuid", "noexec", "nodev", "ro"])],
        "linux": {"namespaces": [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount")]}}
    with open(d + "/config.json", "w") as f:
        json.dump(config, f)
    return d


def run(cmd, rootfs, script, name, timeout):
    d = bundle(rootfs, script)
    start = time.monotonic()
    try:
        p = subprocess.run(cmd + ["run", "--bundle", d, name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, timeout=timeout)
        rc, out = p.returncode, p.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as e:
        rc, out = "timed out", (e.stdout or b"").decode(errors="replace")
        subprocess.run(cmd + ["delete", "--force", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    shutil.rmtree(d, ignore_errors=True)
    return rc, out, time.monotonic() - start


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--rootfs", required=True)
    ap.add_argument("--runsc", required=True)
    ap.add_argument("--platform", default="systrap")
    ap.add_argument("--timeout", type=int, default=120)
    ap.add_argument("names", nargs="*")
    a = ap.parse_args()
    if not shutil.which("runc"):
        print("skip apps: runc is not installed")
        return 0
    ours = shlex.split(a.runsc) + ["--network=none", "--platform=" + a.platform]
    cases = sorted(f[:-3] for f in os.listdir(HERE + "/cases") if f.endswith(".sh"))
    bad = 0
    for c in a.names or cases:
        script = open(f"{HERE}/cases/{c}.sh").read()
        # runc writes to the root file system itself: give it a throw-away overlay of it.
        scratch = tempfile.mkdtemp(prefix="apps-root.")
        for sub in ("up", "work", "root"):
            os.mkdir(f"{scratch}/{sub}")
        subprocess.run(["mount", "-t", "tmpfs", "none", scratch], check=True)
        for sub in ("up", "work", "root"):
            os.makedirs(f"{scratch}/{sub}", exist_ok=True)
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o",
                        f"lowerdir={a.rootfs},upperdir={scratch}/up,workdir={scratch}/work", f"{scratch}/root"], check=True)
        try:
            want = run(["runc"], f"{scratch}/root", script, f"apps-runc-{os.getpid()}", a.timeout)
        finally:
            subprocess.run(["umount", f"{scratch}/root"])
            subprocess.run(["umount", scratch])
            shutil.rmtree(scratch, ignore_errors=True)
        got = run(ours, a.rootfs, script, f"apps-ours-{os.getpid()}", a.timeout)
        if want[:2] == got[:2]:
            print(f"ok {c} ({want[2]:.2f} s, {got[2]:.2f} s)")
        else:
            bad += 1
            print(f"not ok {c}: exit {want[0]} under runc, {got[0]} here ({want[2]:.2f} s, {got[2]:.2f} s)")
            for line in list(difflib.unified_diff(want[1].splitlines(), got[1].splitlines(), "runc", "ours", lineterm="", n=1))[:40]:
                print("    " + line[:200])
        sys.stdout.flush()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
