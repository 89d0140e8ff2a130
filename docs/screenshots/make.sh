#!/usr/bin/env bash
# Draws the pictures of docs/ from the real program: a broker, agents that call stand-ins on loopback, and the desk in
# tmux, driven by keys. Wants root or user namespaces, tmux, curl, python3 and openssl; SECONDS_BEFORE=N is how long they run first.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$PWD/docs/screenshots
torno=${TORNO:-$PWD/bin/torno}
dir=$(mktemp -d /tmp/shot.XXXX)
export TORNO_STATE=$dir/state XDG_RUNTIME_DIR=$dir/run
mkdir -m 700 "$XDG_RUNTIME_DIR"
tmux=(tmux -S "$dir/tmux" -f /dev/null)
pids=()
end() {
	"${tmux[@]}" kill-server 2>/dev/null || true
	for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
	wait 2>/dev/null || true
	rm -rf "$dir"
}
trap end EXIT

port=$((20000 + RANDOM % 20000))
CGO_ENABLED=0 go build -buildvcs=false -o "$dir/upstream" ./docs/screenshots
"$dir/upstream" 127.0.0.1:$port "$dir/ca.pem" 2>/dev/null &
pids+=($!)
until [ -s "$dir/ca.pem" ]; do sleep 0.1; done
hosts="api.anthropic.com api.github.com api.stripe.com api.acme.example"
for host in $hosts; do
	printf '[[upstream]]\nhost = "%s"\ndial = "127.0.0.1:%d"\nca = "%s"\n' "$host" "$port" "$dir/ca.pem"
done >"$dir/broker.toml"
"$torno" serve --config "$dir/broker.toml" >"$dir/log" 2>&1 &
pids+=($!)
until "$torno" sessions list >/dev/null 2>&1; do sleep 0.2; done # which starts no broker of its own

set_secret() { openssl rand -hex 24 | "$torno" secrets set "$@" >/dev/null 2>&1; }
set_secret research ANTHROPIC_API_KEY=-
set_secret research GITHUB_TOKEN=- --expires 9d
set_secret research DATABASE_URL=- --expose env
set_secret billing STRIPE_API_KEY=- --host api.stripe.com --rotation follow
set_secret billing STRIPE_API_KEY=-
printf 1234 | "$torno" secrets set billing ACME_PIN=- --host api.acme.example --header 'X-Pin: {ACME_PIN}' >/dev/null 2>&1
set_secret billing OLD_TOKEN=- --host api.acme.example
"$torno" secrets revoke billing OLD_TOKEN >/dev/null

agent() { # NAME SECRETS RULES COMMAND: runs in the background until the end
	mkdir -p "$dir/$1"
	printf 'name = "%s"\nsecrets = [%s]\n[egress]\n%s\n' "$1" "$2" "$3" >"$dir/$1/torno.toml"
	printf '%s\n' "$4" >"$dir/$1/work.sh"
	chmod -R a+rX "$dir" "$dir/$1" 2>/dev/null || true
	(cd "$dir/$1" && exec "$torno" run --agent "$1" --isolation namespace --trust-config -- bash work.sh >"$dir/$1.log" 2>&1) &
	pids+=($!)
}
agent research '"ANTHROPIC_API_KEY", "GITHUB_TOKEN", "DATABASE_URL"' 'allow = ["GET api.github.com"]
ask = ["DELETE api.github.com/**"]' 'c() { curl -s -m 20 -o /dev/null "$@"; }
i=0
while :; do
	i=$((i + 1))
	c -X POST -d '{}' https://api.anthropic.com/v1/messages
	c "https://api.github.com/repos/ada/engine/issues?page=$i"
	[ $((i % 3)) -ne 0 ] || c https://metrics.tracker.example/collect?id=$i
	[ $((i % 7)) -ne 0 ] || c https://api.anthropic.com/v1/flaky
	[ $i -ne 4 ] || curl -s -m 300 -X DELETE https://api.github.com/repos/ada/engine/git/refs/heads/main >/dev/null &
	sleep 0.$((RANDOM % 9))
done'
agent billing '"STRIPE_API_KEY", "ACME_PIN"' 'ask = ["POST api.stripe.com/v1/refunds"]
deny = ["DELETE api.stripe.com/**"]' 'while :; do
	curl -s -m 20 -o /dev/null https://api.stripe.com/v1/charges?limit=20
	curl -s -m 20 -o /dev/null -X DELETE https://api.stripe.com/v1/customers/cus_81
	[ -n "${asked:-}" ] || { asked=1; curl -s -m 300 -d "charge=ch_3&amount=4200" https://api.stripe.com/v1/refunds >/dev/null & }
	sleep 2
done'
sleep "${SECONDS_BEFORE:-280}"

shoot() { # NAME COLUMNS ROWS THEME KEYS…
	local name=$1 cols=$2 rows=$3 theme=$4
	shift 4
	"${tmux[@]}" start-server \; set -g default-terminal tmux-256color \; set -g status off \; set -g exit-empty off \; \
		new-session -d -s "$name" -x "$cols" -y "$rows" "COLORTERM=truecolor exec $torno tui --theme $theme"
	sleep 2
	for k in "$@"; do
		"${tmux[@]}" send-keys -t "$name" "$k"
		sleep 0.3
	done
	sleep 0.7
	"${tmux[@]}" capture-pane -t "$name" -e -p | python3 "$out/svg.py" "$cols" "$rows" "$theme" >"$out/$name.svg"
	"${tmux[@]}" kill-session -t "$name"
}
shoot secrets 120 22 dark G
shoot requests 120 26 dark 3 f p
shoot approvals 100 24 light 4
shoot health 120 20 dark 5
if [ -n "${ALL:-}" ]; then
	shoot x-secrets-80 80 24 dark G Enter
	shoot x-sessions 140 32 dark 2
	shoot x-approvals 140 32 dark 4
	shoot x-form 80 24 dark a X _ K E Y Tab a . e x Tab Right Tab X
	shoot x-confirm 80 24 light d A C
	shoot x-help 100 30 light 3 '?'
	shoot x-requests-80 80 24 light 3 j Enter
	shoot x-health-80 80 24 light 5
fi
