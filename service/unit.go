package service

import (
	"fmt"
	"path/filepath"
	"strings"
)

// varLib is where systemd keeps the state of services that have no user of
// their own (systemd.exec, DynamicUser= and StateDirectory=).
const varLib = "/var/lib"

// Unit is the text of the systemd unit, for version 247 and later.
//
// A unit of the system runs as a user that systemd makes up for it, may write
// its state directory and nothing else, and sees no home directory. The edge may
// bind ports below 1024, and that is all the privilege there is. A unit of a user
// has those limits that need no privilege to set up; it goes on seeing the
// user's files, since those are what it shares.
func Unit(s Spec) (string, error) {
	if err := s.Validate(); err != nil {
		return "", err
	}
	var b strings.Builder
	section := func(name string) { fmt.Fprintf(&b, "\n[%s]\n", name) }
	set := func(lines ...string) {
		for _, line := range lines {
			b.WriteString(line + "\n")
		}
	}
	edit := "systemctl edit "
	if s.User {
		edit = "systemctl --user edit "
	}
	b.WriteString("# Written by \"wgexpose service install\". For changes that stay, make a\n" +
		"# drop-in: " + edit + s.Name() + "\n")
	section("Unit")
	set("Description="+s.description(), "Documentation=https://github.com/wgexpose/wgexpose")
	if !s.User {
		set("Wants=network-online.target", "After=network-online.target nss-lookup.target")
	}
	set("StartLimitIntervalSec=0")

	section("Service")
	set("Type=notify", "NotifyAccess=main",
		"ExecStart="+commandLine(s))
	if s.Role == Agent {
		set("ExecReload=/bin/kill -HUP $MAINPID") // it reads its file again
	}
	set(
		// 3 is the edge's no: the next try will not end otherwise. 2, what was given
		// is wrong, may: a file that is being replaced, or is not mounted yet.
		"Restart=on-failure", "RestartSec=5s", "RestartPreventExitStatus=3",
		"WatchdogSec=60s", "TimeoutStopSec=60s", "LimitNOFILE=infinity")
	if s.User {
		set(unprivileged...)
		section("Install")
		set("WantedBy=default.target")
		return b.String(), nil
	}
	name, err := stateName(s.State)
	if err != nil {
		return "", err
	}
	set("", "DynamicUser=yes", "StateDirectory="+name, "StateDirectoryMode=0700")
	if s.Role == Edge {
		set("AmbientCapabilities=CAP_NET_BIND_SERVICE", "CapabilityBoundingSet=CAP_NET_BIND_SERVICE")
	} else {
		// With a user namespace of its own the process has no privilege at all
		// over the machine. The edge must bind its ports outside of one.
		set("AmbientCapabilities=", "CapabilityBoundingSet=", "PrivateUsers=yes")
	}
	set(unprivileged...)
	set("ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes", "PrivateMounts=yes", "PrivateDevices=yes", "DevicePolicy=closed",
		"ProtectClock=yes", "ProtectControlGroups=yes", "ProtectHostname=yes", "ProtectKernelLogs=yes",
		"ProtectKernelModules=yes", "ProtectKernelTunables=yes", "ProtectProc=invisible", "RemoveIPC=yes")
	section("Install")
	set("WantedBy=multi-user.target")
	return b.String(), nil
}

// unprivileged are the limits that a manager without privileges can set, too:
// seccomp filters and process attributes.
//
// AF_NETLINK is how a program learns the machine's addresses. No filter denies
// with a kill: Go's runtime asks for some things that it can do without.
var unprivileged = []string{
	"NoNewPrivileges=yes",
	"UMask=0077",
	"KeyringMode=private",
	"LockPersonality=yes",
	"MemoryDenyWriteExecute=yes",
	"RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
	"RestrictNamespaces=yes",
	"RestrictRealtime=yes",
	"RestrictSUIDSGID=yes",
	"SystemCallArchitectures=native",
	"SystemCallFilter=@system-service",
	"SystemCallFilter=~@privileged @resources",
	"SystemCallErrorNumber=EPERM",
}

// stateName is what StateDirectory= takes.
func stateName(state string) (string, error) {
	name, err := filepath.Rel(varLib, state)
	if err != nil || name == "." || name == "private" || strings.HasPrefix(name, "..") || strings.HasPrefix(name, "private/") || strings.ContainsAny(name, " :\"\\%$") {
		return "", fmt.Errorf("a service of the machine keeps its state below %s, where systemd gives it to a user of its own, and %s is not: choose another with --state, or install for yourself with --user", varLib, state)
	}
	return name, nil
}

func commandLine(s Spec) string {
	words := make([]string, 0, 1+len(s.Args))
	for _, w := range append([]string{s.Executable}, s.Args...) {
		words = append(words, quoted(w))
	}
	return strings.Join(words, " ")
}

// quoted writes one word of a command line as systemd reads it back unchanged
// (systemd.service, Command lines): specifiers, variables, quotes and escapes
// mean nothing then.
func quoted(word string) string {
	escaped := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$").Replace(word)
	if escaped == word && word != "" && word != ";" && !strings.ContainsAny(word, " '") {
		return word
	}
	return `"` + escaped + `"`
}
