package main

import "github.com/spf13/pflag"

// habits are flags of ngrok under which its users look for ours. They are taken
// and not listed.
var habits = map[string]string{
	"domain":      "url",
	"hostname":    "url",
	"subdomain":   "name",
	"remote-addr": "port",
	"proxy-proto": "proxy-protocol",
}

// takeHabits lets a command that shares something know them. Its own flags must
// be there already.
func takeHabits(flags *pflag.FlagSet) {
	flags.SetNormalizeFunc(func(f *pflag.FlagSet, name string) pflag.NormalizedName {
		if ours, ok := habits[name]; ok {
			name = ours
		}
		return pflag.NormalizedName(name)
	})
}
