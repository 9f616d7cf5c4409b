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
	flags.BoolVar(&p.compression, "compression", false, "compress texts for visitors that ask for it, where the target has not; not for pages that show secrets next to visitors' input")
	flags.BoolVar(&p.hsts, "hsts", false, "tell browsers to come over HTTPS alone for a year, where the target says nothing of it")
	flags.BoolVar(&p.warning, "warning-page", false, "tell browsers before the first page that somebody shares it from a machine of their own")
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
