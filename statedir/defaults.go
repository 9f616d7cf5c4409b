package statedir

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// AgentDefault is the agent's directory when none is named:
// $XDG_STATE_HOME/wgexpose, where XDG_STATE_HOME defaults to ~/.local/state
// (XDG base directory specification), and wgexpose/state in the user's
// configuration directory on Windows and macOS.
func AgentDefault() (string, error) { return userDefault("wgexpose") }

// EdgeDefault is the edge's directory when none is named: /var/lib/wgexpose
// for root, and for others like the agent's with the name wgexpose-edge.
func EdgeDefault() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/wgexpose", nil
	}
	return userDefault("wgexpose-edge")
}

func userDefault(name string) (string, error) {
	// The specification says to ignore a relative path.
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, name), nil
	}
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		config, err := os.UserConfigDir()
		if err != nil {
			return "", noHome(err)
		}
		return filepath.Join(config, name, "state"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", noHome(err)
	}
	return filepath.Join(home, ".local", "state", name), nil
}

func noHome(err error) error {
	return &Error{Problem: fmt.Sprintf("this user has no home directory (%v)", err), Fix: "name a directory with --state", Err: err}
}
