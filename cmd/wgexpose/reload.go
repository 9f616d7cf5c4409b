package main

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/configs"
)

// loader reads the settings, and the tunnels that are to be shared.
type loader func() (configs.Agent, []configs.Tunnel, error)

// Events of a changed file, beside those of package agent.
const (
	eventConfig   = "config"
	configApplied = "applied"
	configRefused = "refused" // nothing was changed, for the Reason
)

// reload has a running command take over what changes in its file.
type reload struct {
	load    loader
	cfg     configs.Agent // as at the start: other settings than tunnels stay
	tunnels []configs.Tunnel
	specs   []agent.Tunnel // the same
	hashes  passwordHashes
	tell    func(agent.Event)
	end     func() // has the command drain and end
}

// follow begins to look for changes. Tunnels to share come through the channel,
// until stop, which must be called.
func (r *reload) follow(ctx context.Context, apps *apps, log *slog.Logger) (updates <-chan []agent.Tunnel, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	out := make(chan []agent.Tunnel)
	changes := watchFiles(append([]string{r.cfg.File}, r.cfg.More...), log)
	asked, unhook := onHangup(r.end)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			byHand := false
			select {
			case <-ctx.Done():
				return
			case <-changes.changed:
			case <-asked:
				byHand = true
			}
			tunnels, news, err := r.look(apps)
			switch {
			case err != nil:
				r.report(configRefused, err.Error())
				continue
			case tunnels == nil && !byHand && news == "":
				continue // a program has touched the file, no more
			case tunnels != nil:
				select {
				case out <- tunnels:
				case <-ctx.Done():
					return
				}
			}
			r.report(configApplied, news)
		}
	})
	return out, func() {
		cancel()
		unhook()
		running.Wait()
		changes.close()
	}
}

func (r *reload) report(state, reason string) {
	r.tell(agent.Event{Time: time.Now().UTC(), Event: eventConfig, State: state, Reason: reason})
}

// look reads the file again. tunnels are nil when they are as they were; news says
// what is new, for people.
func (r *reload) look(apps *apps) (tunnels []agent.Tunnel, news string, err error) {
	cfg, wanted, err := r.load()
	if err != nil {
		return nil, "", err
	}
	var said []string
	if !reflect.DeepEqual(wanted, r.tunnels) {
		specs, err := agentTunnels(wanted, r.hashes)
		if err == nil {
			err = apps.serve(wanted, specs)
		}
		if err == nil {
			err = agent.CheckTunnels(specs)
		}
		if err != nil {
			return nil, "", err
		}
		said = append(said, difference(r.tunnels, wanted))
		if cut := r.cutOff(specs); len(cut) > 0 {
			said = append(said, fmt.Sprintf("open connections of %s have 10 s to finish", list(cut)))
		}
		tunnels, r.tunnels, r.specs = specs, wanted, specs
	}
	if keys := configs.Differences(r.cfg, cfg); len(keys) > 0 {
		said = append(said, fmt.Sprintf("%s: as before until the next start", list(keys)))
	}
	return tunnels, strings.Join(said, "; "), nil
}

// cutOff names the tunnels whose connections end when specs take the place of what
// there is.
func (r *reload) cutOff(specs []agent.Tunnel) []string {
	var cut []string
	for _, before := range r.specs {
		if !slices.ContainsFunc(specs, func(t agent.Tunnel) bool { return t.Name == before.Name && agent.SameWay(t, before) }) {
			cut = append(cut, before.Name)
		}
	}
	return cut
}

// difference names what has been added, removed and changed.
func difference(before, after []configs.Tunnel) string {
	var added, removed, changed []string
	for _, t := range after {
		i := slices.IndexFunc(before, func(o configs.Tunnel) bool { return o.Name == t.Name })
		switch {
		case i < 0:
			added = append(added, t.Name)
		case !reflect.DeepEqual(before[i], t):
			changed = append(changed, t.Name)
		}
	}
	for _, t := range before {
		if !slices.ContainsFunc(after, func(o configs.Tunnel) bool { return o.Name == t.Name }) {
			removed = append(removed, t.Name)
		}
	}
	var said []string
	for _, part := range []struct {
		verb  string
		names []string
	}{{"added", added}, {"removed", removed}, {"changed", changed}} {
		if len(part.names) > 0 {
			said = append(said, part.verb+" "+list(part.names))
		}
	}
	if len(said) == 0 {
		return "another order"
	}
	return strings.Join(said, "; ")
}

// configLine is what a person reads of a changed file.
func configLine(e agent.Event) string {
	switch {
	case e.State == configRefused:
		return "the configuration has changed and cannot be used; nothing was changed:\n" + e.Reason
	case e.Reason == "":
		return "the configuration is as it was"
	}
	return "the configuration has changed: " + e.Reason
}
