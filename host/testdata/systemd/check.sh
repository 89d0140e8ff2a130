#!/bin/bash
# Installs torno as docs/systemd.md says, in a machine that systemd runs, and has it do its work. What it says goes to the
# console, behind "> ".
exec 2>/root/errors
export TORNO_STATE=/var/lib/torno PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
say() { echo "> $*" >/dev/ttyS0; }
active() { echo "$(systemctl is-active torno.socket) $(systemctl is-active torno.service)"; }
until_is() { # until_is SECONDS WANTED COMMAND...: until the command says what is wanted
	local n=$(($1 * 5)) want=$2; shift 2
	until [ "$("$@")" = "$want" ]; do ((n--)) || { say "timeout: $* says $("$@"), not $want"; return 1; }; sleep 0.2; done
}
property() { systemctl show -p "$1" --value torno.service; }
ask() { echo "$1" >&3; read -r line <&4; say "$2: $line"; }
cd /root/src || exit
mkdir -p /home/person && ip address add 169.254.169.254/32 dev lo && python3 upstream.py &
set -x
. ./install.sh
say "installed: $? $(active), user $(id -un torno), state $(stat -c '%a %U' /var/lib/torno), socket $(stat -c '%a %U' /run/torno/control)"
cat broker.toml >/etc/torno/broker.toml; cp ca.pem /etc/torno/ca.pem

systemctl stop torno.service
say "stopped: $(active)"
say "a command starts it: $(torno secrets list my-agent --json) $(active)"
torno secrets set my-agent API_TOKEN=@key --host api.example.org --as bearer >/dev/null
say "set: $? $(torno secrets list my-agent | grep -c API_TOKEN)"

mkfifo in out
setpriv --reuid torno --regid torno --clear-groups env XDG_RUNTIME_DIR=/run torno-bench soak-guest my-agent api.example.org <in >out 2>/root/guest.errors &
exec 3>in 4<out
read -r line <&4; say "${line%% *}"
ask /one exchange
until_is 60 "1 sessions, 0 requests wait for a person" property StatusText
systemctl status --no-pager torno.service | sed -n 's/^ *Status: /status: /p' | while read -r l; do say "$l"; done

printf '\n[agents.my-agent.egress]\ndefault = "allow"\ndeny = ["api.example.org/two"]\n' >>/etc/torno/broker.toml
systemctl reload torno.service; say "reload: $?"
ask /one still
ask /two narrowed
echo nonsense >>/etc/torno/broker.toml
systemctl reload torno.service; sleep 15 # the status was brought up to date meanwhile
say "wrong file: $(property StatusText | cut -c1-13) $(active)"
sed -i '$d' /etc/torno/broker.toml

systemctl restart torno.service; say "restart: $? $(active)"
ask /one "after a restart"
pid=$(property MainPID); kill -KILL "$pid"
until_is 30 active property ActiveState && until_is 30 1 property NRestarts
ask /one "after kill -9"
pid=$(property MainPID); kill -STOP "$pid"
until_is 120 2 property NRestarts && until_is 30 active property ActiveState
say "watchdog: $(journalctl -u torno.service | grep -c -m1 'Watchdog timeout')"
ask /one "after the watchdog"
exec 3>&- ; read -r line <&4
say "session ended: $(torno sessions list --json)"

printf 'correct horse battery staple\n' >/etc/torno/passphrase; chmod 600 /etc/torno/passphrase
(cat /etc/torno/passphrase; cat /etc/torno/passphrase) | torno key protect --with passphrase >/dev/null
mkdir -p /etc/systemd/system/torno.service.d
printf '[Service]\nLoadCredential=torno-passphrase:/etc/torno/passphrase\n' >/etc/systemd/system/torno.service.d/passphrase.conf
systemctl daemon-reload; systemctl restart torno.service
say "passphrase: $? $(torno key show | grep -o 'protected by: .*') $(torno store verify | head -c 5)"

sed -e 's|^ExecStart=.*|ExecStart=/usr/bin/python3 /opt/probe.py /run/torno/probe|; s|^Type=.*|Type=oneshot|; /^WatchdogSec\|^Restart/d; /^Requires\|^After/d' /etc/systemd/system/torno.service >/etc/systemd/system/probe.service
install -D -m 644 probe.py /opt/probe.py
systemctl daemon-reload; systemctl start probe.service; say "probe: $?"
while read -r line; do say "$line"; done </run/torno/probe
say "the host sees: $(ls /etc/probe /usr/probe /run/probe /root/src/probe 2>/dev/null | wc -l) files of the probe's"
python3 /opt/probe.py /root/unconfined; say "without the sandbox: $(grep -c allowed /root/unconfined) allowed, $(grep refused /root/unconfined)"

torno audit verify >/dev/null; say "audit: $?"
say "log: $(journalctl -b | grep -c -F "$(cat key)") lines with the key, errors: $(journalctl -u torno.service | sed -n 's/.*level=ERROR msg=\("[^"]*"\|[^ ]*\).*/\1/p' | sort -u | tr '\n' ';')"
systemctl stop torno.socket torno.service
say "end: $(active), $(property Result) $(property ExecMainStatus)"
say "exposure: $(systemd-analyze security --no-pager torno.service | sed -n 's/.*exposure level for torno.service: \([0-9.]*\).*/\1/p')"
torno-bench soak -bin /usr/local/bin -only clock -set-clock | while read -r l; do say "soak: $l"; done
say "done $(grep -c . /root/guest.errors)"
sync; cat /root/errors >/dev/ttyS0
