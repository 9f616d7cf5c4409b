package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cli/browser"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/screen"
	"github.com/wgexpose/wgexpose/statedir"
)

const (
	// watchEvery is how often the screen's numbers are read.
	watchEvery = 500 * time.Millisecond
	// killTime is for the terminal to be restored when the process is to end at
	// once.
	killTime = time.Second
)

// output is how a command that shares something tells what happens.
type output struct {
	json  bool
	plain bool   // lines, never a screen
	asked string // public address on the command line, if one was
}

func (o *output) flags(cmd *cobra.Command) {
	jsonFlag(cmd, &o.json)
	plainFlag(cmd, &o.plain)
}

func plainFlag(cmd *cobra.Command, plain *bool) {
	cmd.Flags().BoolVar(plain, "plain", false, "print lines instead of the live screen, as when NO_COLOR is set or the output is not a terminal")
}

// wantsScreen tells whether a person sits at a terminal that can show one.
func (a *app) wantsScreen() bool {
	out, ok := a.stdout.(*os.File)
	if !ok || !term.IsTerminal(int(out.Fd())) || !isTerminal(a.stdin) {
		return false
	}
	// https://no-color.org: any value that is not empty.
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && foreground(out)
}

// live is a screen with what it needs of the rest of the command.
type live struct {
	*screen.Screen
	app  *app
	ctx  context.Context // of the drain
	own  bool            // standard error is the same terminal, so its lines go to the screen
	logs io.Writer       // standard error, as it was

	mu    sync.Mutex // guards what follows
	ended bool       // the screen could not go on: lines are printed
	last  []agent.Event
}

// onScreen shows the screen while do runs, and then the last word of everything
// on the normal one.
func (a *app) onScreen(d *drain, cfg screen.Config, do func(*live) error) error {
	cfg.In, cfg.Out, cfg.Err = a.stdin, a.stdout, a.stderr
	cfg.Interrupt, cfg.Browse = d.interrupt, browse
	l := &live{Screen: screen.New(cfg), app: a, ctx: d.ctx, logs: a.stderr}
	if f, ok := a.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		l.own = true
		a.stderr = l.Log()
		defer func() { a.stderr = l.logs }()
		// Libraries that know no other place write there.
		log.SetOutput(l.Log())
		defer log.SetOutput(os.Stderr)
	}
	d.atExit(l.kill)
	defer d.atExit(nil)
	defer context.AfterFunc(d.ctx, l.Stopping)()
	show, hide := context.WithCancel(context.WithoutCancel(d.ctx))
	defer hide()
	var shown sync.WaitGroup
	shown.Go(func() {
		if err := l.Run(show); err != nil {
			l.giveUp(err)
		}
	})
	err := do(l)
	hide()
	shown.Wait()
	return errors.Join(err, l.lastWords(err))
}

// kill restores the terminal, unless it takes nothing any more.
func (l *live) kill() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Kill()
	}()
	select {
	case <-done:
	case <-time.After(killTime):
	}
}

// giveUp goes on without the screen.
func (l *live) giveUp(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	fmt.Fprintf(l.logs, "going on without the screen: %v\n", err)
}

// event shows a change, and keeps the last one of each link and tunnel from
// before the end.
func (l *live) event(e agent.Event, print func(agent.Event)) {
	l.Event(e)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		print(e)
		return
	}
	if l.ctx.Err() != nil || e.State == agent.TunnelGone {
		return
	}
	i := slices.IndexFunc(l.last, func(o agent.Event) bool {
		return o.Event == e.Event && o.Edge == e.Edge && (o.Name == e.Name || o.Name == "" && o.Upstream == e.Upstream)
	})
	if i < 0 {
		l.last = append(l.last, e)
	} else {
		l.last[i] = e
	}
}

// lastWords are the lines that a person would have read last without a screen:
// where things were, and what was wrong with them, unless the command ends with that.
func (l *live) lastWords(end error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil
	}
	for _, e := range l.last {
		var err error
		switch {
		case e.Event == agent.EventTunnel && e.State == agent.TunnelUp:
			_, err = fmt.Fprintln(l.app.stdout, tunnelLine(e))
		case end != nil && e.Error != nil && strings.Contains(end.Error(), e.Error.Message):
		case e.Event == agent.EventTunnel:
			_, err = fmt.Fprintln(l.logs, tunnelLine(e))
		case e.Event == agent.EventLink && e.State != agent.LinkUp:
			_, err = fmt.Fprintln(l.logs, linkLine(e))
		}
		if err != nil {
			return fmt.Errorf("write to the terminal: %w", err)
		}
	}
	return nil
}

// watching feeds the screen with numbers until stop is called, the drain
// included.
func (l *live) watching(dir *statedir.Dir) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(l.ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		err := agent.Watch(ctx, dir, agent.WatchOptions{Of: os.Getpid(), Every: watchEvery}, l.Status)
		if err != nil {
			fmt.Fprintf(l.Log(), "the numbers on the screen stand still: %v\n", err)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// browse opens a page where there is a browser to see it in.
func browse(url string) error {
	if runtime.GOOS == "linux" && cmp.Or(os.Getenv("DISPLAY"), os.Getenv("WAYLAND_DISPLAY"), os.Getenv("WSL_DISTRO_NAME")) == "" {
		return errors.New("this machine has no display; c copies, r shows a QR code")
	}
	browser.Stdout, browser.Stderr = io.Discard, io.Discard // what it prints is not for the screen
	return browser.OpenURL(url)
}
