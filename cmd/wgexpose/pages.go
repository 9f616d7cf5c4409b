package main

import (
	"strconv"

	"github.com/spf13/pflag"
)

// pageFlags are what http and serve have for pages that browsers look at.
type pageFlags struct {
	flags                      *pflag.FlagSet
	compression, hsts, warning bool
}

func addPageFlags(flags *pflag.FlagSet) *pageFlags {
	p := &pageFlags{flags: flags}
	flags.BoolVar(&p.compression, "compression", false, "compress text for visitors that accept it, unless the target has; not for pages that show secrets beside visitors' input")
	flags.BoolVar(&p.hsts, "hsts", false, "tell browsers to use HTTPS only, for a year, unless the target says something else")
	flags.BoolVar(&p.warning, "warning-page", false, "tell browsers, before the first page, that somebody shares this from their own machine")
	return p
}

// set puts those that were given among a tunnel's settings.
func (p *pageFlags) set(values map[string]string) {
	for flag, of := range map[string]struct {
		key string
		on  bool
	}{"compression": {"compression", p.compression}, "hsts": {"hsts", p.hsts}, "warning-page": {"warning_page", p.warning}} {
		if p.flags.Changed(flag) {
			values[of.key] = strconv.FormatBool(of.on)
		}
	}
}
