// Package configs reads the settings of an agent and of an edge: the schema of
// their files, the defaults, and which place wins when several name one key.
//
//	flags := pflag.NewFlagSet("edge", pflag.ContinueOnError)
//	configs.EdgeFlags(flags)
//	flags.Parse([]string{"--domain", "example.com"})
//	edge, err := configs.LoadEdge(flags)
//
// A key has one name everywhere: listen_wg in the file, --listen-wg as a flag,
// WGEXPOSE_LISTEN_WG in the environment. A flag wins over the environment, that
// over the file, that over the default. An empty variable counts as unset.
//
// All problems of one start are reported at once, each with the place that has
// to be edited: a file and its line, a flag or a variable.
package configs

import (
	"fmt"
	"strings"
)

// Problem is one setting that cannot be used.
type Problem struct {
	Place   string // where it was set: "wgexpose.yml:7", "--listen-wg", "WGEXPOSE_TLS"
	Key     string // the key, with the keys above it: "tunnels.app.port"; empty when the whole file is meant
	Message string // what is wrong and what is allowed
	flag    bool   // Place is a flag, whose name is the key
	line    int    // in the file; 0: not from the file
}

func (p Problem) String() string {
	if p.Key == "" || p.flag {
		return p.Place + ": " + p.Message
	}
	return p.Place + ": " + p.Key + ": " + p.Message
}

// Error has everything that is wrong with the settings, in the order of the
// file, then flags and environment.
type Error struct {
	Problems []Problem
	cause    error // why a file cannot be read, or nil
}

// Unwrap is why a file cannot be read, or nil.
func (e *Error) Unwrap() error { return e.cause }

func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Usage tells whether the command line alone is to blame.
func (e *Error) Usage() bool {
	for _, p := range e.Problems {
		if !p.flag {
			return false
		}
	}
	return len(e.Problems) > 0
}

// quote shows a value inside a message, cut where it would fill the screen.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		return fmt.Sprintf("%q…", strings.ToValidUTF8(s[:most], ""))
	}
	return fmt.Sprintf("%q", s)
}
