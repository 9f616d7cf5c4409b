// Package screen shows on a terminal what an agent does, live.
//
//	s := screen.New(screen.Config{Title: "laptop at example.com", Interrupt: stop})
//	log := slog.New(slog.NewTextHandler(s.Log(), nil))
//	go agent.Run(ctx, agent.Config{Events: s.Event, Logger: log, …})
//	go agent.Watch(ctx, dir, agent.WatchOptions{…}, s.Status)
//	err := s.Run(ctx) // until ctx ends
//
// Whatever tells the screen something returns at once, even while the terminal
// takes no output (Ctrl-S): it is put into a feed of bounded size, which the
// screen reads at most ten times a second.
//
//	Event ─┐
//	Status ┼─> feed ──(a frame has passed)──> model ──> View ──> terminal
//	Log ───┘
//
// Nothing is swallowed: log lines that came while the screen was up are on the
// normal screen when it has ended.
//
// Texts from elsewhere (paths, names, reasons) are cleaned of all that a
// terminal would obey before they are laid out.
package screen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	tea "charm.land/bubbletea/v2"

	"github.com/wgexpose/wgexpose/agent"
)

// Config is what a Screen needs. Zero values are the defaults.
type Config struct {
	In      io.Reader // nil: the terminal that is standard input
	Out     io.Writer // nil: the terminal that is standard output
	Err     io.Writer // takes log lines when the screen has ended; nil: standard error
	Environ []string  // nil: this process's

	Title   string         // of the first line
	Tunnels []agent.Tunnel // those that are asked for

	// Interrupt is called when the user asks for the end, and may be called
	// again. It must return at once. nil: nobody can.
	Interrupt func()
	// Browse opens a URL in the user's browser. nil: it cannot be done.
	Browse func(url string) error
}

// Screen is a live view of one command. Event, Status and Log may be used at any
// time, before Run and after it.
type Screen struct {
	feed    *feed
	program *tea.Program
}

// New makes a Screen. It does not touch the terminal.
func New(cfg Config) *Screen {
	if cfg.Err == nil {
		cfg.Err = os.Stderr
	}
	options := []tea.ProgramOption{tea.WithFPS(frames), tea.WithoutSignalHandler()}
	if cfg.In != nil {
		options = append(options, tea.WithInput(cfg.In))
	}
	if cfg.Out != nil {
		options = append(options, tea.WithOutput(cfg.Out))
	}
	if cfg.Environ != nil {
		options = append(options, tea.WithEnvironment(cfg.Environ))
	}
	f := newFeed(cfg.Err)
	return &Screen{feed: f, program: tea.NewProgram(newModel(cfg, f), options...)}
}

// Event shows a change of state. It never blocks.
func (s *Screen) Event(e agent.Event) { s.feed.event(e) }

// Status shows numbers, and the visits that are new or have changed. It never
// blocks.
func (s *Screen) Status(st agent.Status) { s.feed.setStatus(st) }

// Note is some lines of text for the user.
type Note struct {
	Text    string
	Command bool // a line for a shell, which stays one where it has to be broken
}

// Notes shows notes below the tunnels where there is room for all of them.
func (s *Screen) Notes(notes ...Note) { s.feed.setNotes(notes) }

// Stopping shows that the end has begun.
func (s *Screen) Stopping() { s.feed.setStopping() }

// Log takes log lines: they are shown while the screen is up, and written to
// Config.Err when it has ended.
func (s *Screen) Log() io.Writer { return s.feed }

// frames is how often a second the terminal is written to, at most.
const frames = 10

// Run shows the screen until ctx ends, and leaves the terminal as it was. An
// error means that the terminal is of no use any more.
func (s *Screen) Run(ctx context.Context) error {
	defer s.feed.release()
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-ctx.Done():
			s.program.Quit()
		case <-done:
		}
	}()
	_, err := s.program.Run()
	close(done)
	<-ended
	if err != nil {
		return fmt.Errorf("show the screen: %w", err)
	}
	if ctx.Err() == nil {
		return errors.New("show the screen: the terminal has gone")
	}
	return nil
}

// Kill leaves the terminal as it was and ends Run, at once.
func (s *Screen) Kill() { s.program.Kill() }
