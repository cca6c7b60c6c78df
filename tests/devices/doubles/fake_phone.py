"""A phone for tests: an ``adb`` whose shell is this machine's, and benchmark programs that replay transcripts.

What ``adb shell`` is given goes through a real shell, as on a phone, so that a word that is not quoted
does there what it would do on a phone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"

ADB = r"""
home='{home}'
printf '%s\037' "$@" >> "$home/log"; echo >> "$home/log"
if [ "$1" = devices ]; then
  printf 'List of devices attached\n'; cat "$home/phones"; echo; exit
fi
serial=$2 verb=$3
[ "$1" = -s ] || exit 64
shift 3
if [ "$verb" = shell ]; then echo >> "$home/shell_calls"; fi
if ! grep -q "^$serial" "$home/phones" || [ "$(wc -l < "$home/shell_calls")" -gt "$(cat "$home/gone_after")" ]; then
  echo "error: device '$serial' not found" >&2; exit 1
fi
there() {{ printf '%s' "$1" | sed "s#/data/local/tmp#$home/tmp#g"; }}
case $verb in
  push) cp -- "$1" "$(there "$2")" && echo "$1: 1 file pushed, 0 skipped." ;;
  shell) cd "$home/root" && PATH="$home/bin:$PATH" exec sh -c "$(there "$*")" ;;
esac
"""

PERF_TEST = r"""
while [ $# -gt 2 ]; do [ "$1" = -r ] && n=$2; shift; done
grep -q 'convolutional hang' "$1" && exec sleep 60
if [ "$(head -c 1 "$1" | od -An -tu1 | tr -d ' ')" != 8 ]; then
  echo "Load model from $1 failed:Protobuf parsing failed." >&2; exit 1
fi
awk -F, -v n="$n" -v scale="$(($(wc -c < "$1")))e-4" '
  {{ name[NR-1] = $1; time[NR-1] = $2; memory[NR-1] = $3 }}
  END {{
    for (i = 0; i < n; i++) {{ k = i % NR; printf "%s,%.6g,%s,99,%d\n", name[k], time[k] * scale, memory[k], i }}
  }}
' {transcript} >> "$2"
echo "Total inference requests: $n"
"""

BENCHMARK_MODEL = "cat {transcript}"


@dataclass
class Phone:
    """The folder of the phone, and the programs for it."""

    home: Path

    def set(self, phones: Mapping[str, str] | None = None, gone_after: int | None = None) -> None:
        """``phones``: state by serial; ``gone_after``: so many shell commands they answer."""
        if phones is not None:
            (self.home / "phones").write_text("".join(f"{serial}\t{state}\n" for serial, state in phones.items()))
        if gone_after is not None:
            (self.home / "gone_after").write_text(str(gone_after))

    def calls(self) -> list[list[str]]:
        """Arguments of every call of adb."""
        log = self.home / "log"
        return [line.split("\037")[:-1] for line in log.read_text().splitlines()] if log.exists() else []

    def shell_calls(self) -> list[str]:
        """What the phone's shell was given."""
        return [" ".join(call[3:]) for call in self.calls() if "shell" in call]

    def left(self) -> list[str]:
        """Folders of ours on the phone."""
        return [path.name for path in (self.home / "tmp").iterdir()]

    def say(self, command: str, text: str) -> None:
        """Has a command of the phone print ``text``."""
        (self.home / f"{command}.txt").write_text(text)
        _script(self.home / "bin" / command, f"cat {self.home}/{command}.txt")

    @property
    def perf_test(self) -> str:
        return str(self.home / "onnxruntime_perf_test")

    @property
    def benchmark_model(self) -> str:
        return str(self.home / "benchmark_model")


def make_phone(home: Path) -> Phone:
    """A phone with one core mask tool, properties and a cool processor."""
    for folder in ("bin", "tmp", "root", "path"):
        (home / folder).mkdir(parents=True)
    for name, text in (("onnxruntime_perf_test", PERF_TEST), ("benchmark_model", BENCHMARK_MODEL)):
        source = "perf_test_result" if text is PERF_TEST else name
        _script(home / name, text.format(transcript=TRANSCRIPTS / f"{source}.txt"))
    _script(home / "path" / "adb", ADB.format(home=home))
    (home / "shell_calls").touch()
    _script(home / "bin" / "taskset", 'shift; exec "$@"')
    _script(home / "bin" / "pkill", "exit 1")
    phone = Phone(home)
    phone.set(phones={"2A1": "device"}, gone_after=1 << 30)
    phone.say("getprop", (TRANSCRIPTS / "getprop.txt").read_text())
    phone.say("dumpsys", (TRANSCRIPTS / "thermalservice.txt").read_text())
    phone.say("nproc", "8\n")
    return phone


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
