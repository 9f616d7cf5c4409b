package main

import (
	"strings"

	"github.com/spf13/pflag"

	"github.com/wgexpose/wgexpose/tunnel"
)

// policyFlags are the flags of who may visit a tunnel, and of its headers.
type policyFlags struct {
	flags *pflag.FlagSet
	lists map[string]*[]string // by flag
}

func addPolicyFlags(flags *pflag.FlagSet, kind tunnel.Kind) *policyFlags {
	p := &policyFlags{flags: flags, lists: make(map[string]*[]string)}
	if kind == tunnel.HTTP {
		p.lists["basic-auth"] = flags.StringArray("basic-auth", nil, "let in only visitors who give `USER:PASSWORD` (can be repeated)")
	}
	p.lists["cidr-allow"] = flags.StringSlice("cidr-allow", nil, "let in only visitors from this `NETWORK`, such as 192.0.2.0/24 (can be repeated)")
	p.lists["cidr-deny"] = flags.StringSlice("cidr-deny", nil, "turn away visitors from this `NETWORK` (can be repeated)")
	if kind == tunnel.HTTP {
		p.lists["request-header-add"] = flags.StringArray("request-header-add", nil, "add `\"NAME: VALUE\"` to requests (can be repeated)")
		p.lists["request-header-remove"] = flags.StringArray("request-header-remove", nil, "remove the header `NAME` from requests (can be repeated)")
		p.lists["response-header-add"] = flags.StringArray("response-header-add", nil, "add `\"NAME: VALUE\"` to answers (can be repeated)")
		p.lists["response-header-remove"] = flags.StringArray("response-header-remove", nil, "remove the header `NAME` from answers (can be repeated)")
	}
	return p
}

// set puts what was given into the values of a tunnel.
func (p *policyFlags) set(values map[string]string) error {
	for flag, list := range p.lists {
		if !p.flags.Changed(flag) {
			continue
		}
		for _, item := range *list {
			if strings.Contains(item, "\n") {
				return usagef("--%s: goes over several lines", flag)
			}
		}
		values[strings.ReplaceAll(flag, "-", "_")] = strings.Join(*list, "\n")
	}
	return nil
}
