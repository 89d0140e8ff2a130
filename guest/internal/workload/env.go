package workload

import (
	"os"
	"strings"

	"torno.internal/protocol"
)

const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// proxyVariables are never set: the capture needs none, and clients that read them would lose what
// they had without.
var proxyVariables = []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY"}

// environment builds the workload's environment from nothing. Later lists win over earlier ones, so
// neither the person nor the broker can take the session's CA away by accident.
func environment(user, shell string, lists ...[]string) []string {
	env := []string{
		"PATH=" + searchPath,
		"HOME=" + Home(user),
		"USER=" + user,
		"LOGNAME=" + user,
		"SHELL=" + shell,
	}
	for _, list := range lists {
		for _, entry := range list {
			env = setEnv(env, entry)
		}
	}
	return env
}

// setEnv adds one KEY=VALUE, replacing an earlier one; what is none, or names a proxy, is left out.
func setEnv(env []string, entry string) []string {
	key, _, ok := strings.Cut(entry, "=")
	if !ok || key == "" || strings.IndexByte(entry, 0) >= 0 {
		return env
	}
	for _, p := range proxyVariables {
		if strings.EqualFold(key, p) {
			return env
		}
	}
	for i := range env {
		if strings.HasPrefix(env[i], key+"=") {
			env[i] = entry
			return env
		}
	}
	return append(env, entry)
}

func lookup(env []string, key string) string {
	for _, entry := range env {
		if v, ok := strings.CutPrefix(entry, key+"="); ok {
			return v
		}
	}
	return ""
}

// Home returns the home directory of a workload's user.
func Home(user string) string {
	if user == protocol.UserRoot {
		return "/root"
	}
	return "/home/agent"
}

// Shell returns the users' shell.
func Shell() string {
	const better = "/bin/bash"
	if _, err := os.Stat(better); err == nil {
		return better
	}
	return "/bin/sh"
}
