package manual

import "slices"

// A place is a file or a variable of the environment that commands heed; no commands stand for all of them.
type place struct {
	name, text string
	commands   []string
}

// environment is every variable that torno reads.
var environment = []place{
	{"TORNO_STATE", "Where the broker keeps its state. Default: $XDG_STATE_HOME/torno.", nil},
	{"XDG_STATE_HOME", "Holds the state's directory. Default: ~/.local/state.", nil},
	{"XDG_RUNTIME_DIR", "Holds the directory of the sockets, torno. Default for root: /run.", nil},
	{"TORNO_IMAGES", "Where kernels and images are kept.", []string{"run", "image", "doctor", "demo", "vm"}},
	{"XDG_DATA_HOME", "Holds torno/images for whoever is not root. Default: ~/.local/share.", []string{"run", "image", "doctor", "demo", "vm"}},
	{"TORNO_WORKSPACES", "Where workspaces wait that did not come back. Default: workspaces, beside the images.", []string{"run", "workspace"}},
	{"TMPDIR", "Where a VM's disk is made.", []string{"run", "image", "demo"}},
	{"TERM, COLORTERM, LANG, LANGUAGE, LC_*, TZ, NO_COLOR, FORCE_COLOR, CLICOLOR", "Are passed on to the command.", []string{"run"}},
	{"NO_COLOR", "No colours.", []string{"tui"}},
	{"CREDENTIALS_DIRECTORY", "Where systemd puts the credentials of a service: the key's passphrase.", []string{"serve"}},
	{"LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES", "The control socket, where systemd holds it.", []string{"serve"}},
	{"NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID", "Where systemd is told that the broker is ready and alive.", []string{"serve"}},
}

// filePlaces is every file that people may look for.
var filePlaces = []place{
	{"torno.toml", "In the working directory: what the agent needs and where it may go. torno.toml(5).", []string{"run", "trust", "init", "policy"}},
	{"$TORNO_STATE/broker.toml", "What the operator says. broker.toml(5).", []string{"serve", "reload", "doctor", "policy"}},
	{"/etc/torno/broker.toml", "The same, where the broker is a service.", []string{"serve", "reload"}},
	{"$TORNO_STATE", "The store, the key and the audit of the broker, mode 0700.", nil},
	{"$XDG_RUNTIME_DIR/torno/control", "The control socket, mode 0600.", nil},
	{"/var/lib/torno/images, $XDG_DATA_HOME/torno/images", "Kernels and images of root, and of others.", []string{"run", "image", "demo"}},
}

func variables(command string) []block { return placesOf(environment, command) }
func files(command string) []block     { return placesOf(filePlaces, command) }

// placesOf returns what a command heeds; the empty one is torno, which heeds all.
func placesOf(all []place, command string) []block {
	var out []block
	for _, p := range all {
		if command == "" || p.commands == nil || slices.Contains(p.commands, command) {
			out = append(out, block{kind: tagged, tag: p.name, text: p.text + "\n"})
		}
	}
	return out
}
