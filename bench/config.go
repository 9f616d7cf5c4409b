//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// config is what a run was told.
type config struct {
	quick    bool
	only     []string // cases; empty: all
	rounds   int
	binary   string            // wgexpose
	against  map[string]string // further builds of it by the names of their paths
	self     string            // this program
	out      string            // directory for the JSON
	cc       string            // TCP congestion control of a namespace to run in; "" runs outside
	edgeArgs []string
	upArgs   []string

	streams   []int
	duration  time.Duration // of one bulk measurement
	idleConns int
	hold      time.Duration // how long idle connections are held
	connects  time.Duration // how long connections are opened
	data      float64       // GB moved by the memory case
	churn     int64         // connections opened by the memory case

	link    bool
	rtts    []time.Duration
	losses  []float64 // fractions
	rate    float64   // bit/s
	linkFor time.Duration
	seed    uint64
	paths   []string
}

// patience is what the whole run may take, after which it is given up.
const patience = time.Hour

func parseFlags(args []string, stderr io.Writer) (config, error) {
	var c config
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&c.quick, "quick", false, "one short round of everything, in about a minute")
	only := flags.String("only", "", "`CASES` to run, separated by commas: "+strings.Join(caseNames(), ", "))
	flags.IntVar(&c.rounds, "rounds", 0, "`N` rounds of each comparison, half as many of echoes (default 5, quick 1)")
	flags.StringVar(&c.binary, "wgexpose", "", "`FILE` of the program to measure (default: wgexpose beside this program)")
	against := flags.String("against", "", "other builds to measure in turn with it, as `FILES` separated by commas")
	flags.StringVar(&c.out, "out", "bench/out", "`DIR` for the results as JSON")
	flags.StringVar(&c.cc, "cc", "", "TCP congestion control `NAME`, such as cubic, of a network namespace of its own to run in (root; default: as the machine is)")
	edgeArgs := flags.String("edge-args", "", "further `ARGUMENTS` for wgexpose edge, separated by blanks")
	upArgs := flags.String("agent-args", "", "further `ARGUMENTS` for wgexpose up, separated by blanks")
	streams := flags.String("streams", "", "`NUMBERS` of parallel streams (default 1,8,64; link 1,8)")
	flags.DurationVar(&c.duration, "time", 0, "`TIME` of each bulk measurement (default 3s, quick 1s)")
	flags.IntVar(&c.idleConns, "idle-conns", 10_000, "`N` connections of the idle case")
	flags.DurationVar(&c.hold, "hold", 0, "`TIME` to hold them (default 20s, quick 4s)")
	flags.DurationVar(&c.connects, "connect-time", 0, "`TIME` to open connections for (default 30s, quick 3s)")
	flags.Float64Var(&c.data, "data", 0, "`GB` that the memory case moves (default 10, quick 1)")
	flags.Int64Var(&c.churn, "churn", 0, "`N` connections that the memory case opens (default 100000, quick 20000)")
	flags.BoolVar(&c.link, "link", false, "measure over an emulated link between two network namespaces (root)")
	rtts := flags.String("rtt", "", "link: round-trip `TIMES` (default 0,40ms,100ms,200ms; quick 0,40ms)")
	losses := flags.String("loss", "", "link: packet losses in `PERCENT` (default 0,0.1,1; quick 0,0.1)")
	rate := flags.Float64("rate", 200, "link: `MBITS` per second each way")
	flags.DurationVar(&c.linkFor, "link-time", 0, "link: `TIME` of each measurement, after 2s (default 8s, quick 3s)")
	flags.Uint64Var(&c.seed, "seed", 1, "link: `NUMBER` that chooses which packets are lost")
	paths := flags.String("paths", "", "`PATHS` to measure (default wgexpose,netstack,plain; link wgexpose,plain)")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: bench [flags]")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if flags.NArg() > 0 {
		return c, fmt.Errorf("%q is neither a flag nor a role", flags.Arg(0))
	}
	c.rate = *rate * 1e6
	c.edgeArgs, c.upArgs = strings.Fields(*edgeArgs), strings.Fields(*upArgs)
	c.fillIn()
	var errs []error
	var err error
	list := func(flag, text string, fallback string) []string {
		if text == "" {
			text = fallback
		}
		return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
	}
	if *only != "" {
		c.only = list("only", *only, "")
	}
	for _, name := range c.only {
		if !slices.Contains(caseNames(), name) {
			errs = append(errs, fmt.Errorf("-only: there is no case %q; there are %s", name, strings.Join(caseNames(), ", ")))
		}
	}
	c.streams, err = each(list("streams", *streams, c.pick("1,8", "1,8,64")), strconv.Atoi)
	errs = append(errs, err)
	c.rtts, err = each(list("rtt", *rtts, c.short("0,40ms", "0,40ms,100ms,200ms")), parseDuration)
	errs = append(errs, err)
	c.losses, err = each(list("loss", *losses, c.short("0,0.1", "0,0.1,1")), parsePercent)
	errs = append(errs, err)
	c.paths = list("paths", *paths, c.pick("wgexpose,plain", "wgexpose,netstack,plain"))
	for _, p := range c.paths {
		if !slices.Contains([]string{pathWgexpose, pathNetstack, pathPlain}, p) {
			errs = append(errs, fmt.Errorf("-paths: there is no path %q", p))
		}
	}
	errs = append(errs, c.validate(), c.findPrograms(), c.findOthers(strings.FieldsFunc(*against, func(r rune) bool { return r == ',' })))
	return c, errors.Join(errs...)
}

// pick chooses between what the link and the other mode take by default.
func (c *config) pick(link, other string) string {
	if c.link {
		return link
	}
	return other
}

// short chooses between what a quick and a full run take by default.
func (c *config) short(quick, full string) string {
	if c.quick {
		return quick
	}
	return full
}

func (c *config) fillIn() {
	full := func(p *time.Duration, quick, full time.Duration) {
		if *p == 0 {
			*p = full
			if c.quick {
				*p = quick
			}
		}
	}
	full(&c.duration, time.Second, 3*time.Second)
	full(&c.hold, 4*time.Second, 20*time.Second)
	full(&c.connects, 3*time.Second, 30*time.Second)
	full(&c.linkFor, 3*time.Second, 8*time.Second)
	if c.rounds == 0 {
		c.rounds = 5
		if c.link {
			c.rounds = 1
		}
		if c.quick {
			c.rounds = 1
		}
	}
	if c.data == 0 {
		c.data = 10
		if c.quick {
			c.data = 1
		}
	}
	if c.churn == 0 {
		c.churn = 100_000
		if c.quick {
			c.churn = 20_000 // fewer are less than a garbage collection
		}
	}
}

func (c *config) validate() error {
	switch {
	case c.rounds < 1:
		return errors.New("-rounds must be at least 1")
	case c.idleConns < 1 || c.churn < 1 || c.data <= 0:
		return errors.New("-idle-conns, -churn and -data must be more than nothing")
	case c.duration <= 0 || c.hold <= 0 || c.connects <= 0 || c.linkFor <= 0:
		return errors.New("a time must be more than nothing")
	case c.rate <= 0:
		return errors.New("-rate must be more than nothing")
	case len(c.paths) == 0 || c.paths[0] != pathWgexpose:
		return errors.New("-paths must begin with wgexpose, which the others are compared with")
	case slices.ContainsFunc(c.streams, func(n int) bool { return n < 1 || n > 1000 }):
		return errors.New("-streams must be between 1 and 1000")
	}
	return nil
}

// findPrograms makes the paths of both programs absolute.
func (c *config) findPrograms() error {
	var err error
	if c.self, err = os.Executable(); err != nil {
		return err
	}
	if c.binary == "" {
		c.binary = filepath.Join(filepath.Dir(c.self), "wgexpose")
	}
	if c.binary, err = filepath.Abs(c.binary); err != nil {
		return err
	}
	if _, err := os.Stat(c.binary); err != nil {
		return fmt.Errorf("the program to measure is not there: %w; build it with make build, or name it with -wgexpose", err)
	}
	return nil
}

// findOthers gives further builds paths that are named after their files.
func (c *config) findOthers(files []string) error {
	c.against = make(map[string]string)
	for _, file := range files {
		file, err := filepath.Abs(file)
		if err != nil {
			return err
		}
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("-against: %w", err)
		}
		name := filepath.Base(file)
		if slices.Contains(c.paths, name) || slices.Contains([]string{pathNetstack, pathQuiet, pathPlain}, name) {
			return fmt.Errorf("-against: another path is called %s already; give the file another name", name)
		}
		c.against[name] = file
		c.paths = append(c.paths, name)
	}
	return nil
}

// each parses all texts.
func each[T any](texts []string, parse func(string) (T, error)) ([]T, error) {
	var out []T
	for _, text := range texts {
		v, err := parse(text)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	if len(out) == 0 {
		return nil, errors.New("a list is empty")
	}
	return out, nil
}

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err == nil && d < 0 {
		err = fmt.Errorf("%q is negative", text)
	}
	return d, err
}

func parsePercent(text string) (float64, error) {
	p, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	if err == nil && !(p >= 0 && p <= 100) {
		err = fmt.Errorf("%q is no percentage", text)
	}
	return p / 100, err
}
