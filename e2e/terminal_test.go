package e2e

import (
	"fmt"
	"html"
	"image/color"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
)

// terminal is a program on a terminal, which is emulated: what a person would see.
type terminal struct {
	t    *testing.T
	cmd  *exec.Cmd
	tty  *os.File
	done chan struct{} // closed when all that the program wrote has been read

	mu      sync.Mutex // guards all below
	emu     *vt.Emulator
	raw     strings.Builder // as it came
	changed chan struct{}   // closed and replaced
}

// startTerminal runs the program under test on a terminal.
func startTerminal(t *testing.T, columns, rows int, env []string, args ...string) *terminal {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("there are no pseudo-terminals of this kind on Windows")
	}
	x := &terminal{t: t, done: make(chan struct{}), emu: vt.NewEmulator(columns, rows), changed: make(chan struct{})}
	x.cmd = exec.Command(binary, args...)
	x.cmd.Env = append(os.Environ(), "TERM=xterm-256color", "NO_COLOR=", "SSH_TTY=/dev/pts/0", "DISPLAY=", "WAYLAND_DISPLAY=")
	x.cmd.Env = append(x.cmd.Env, env...)
	var err error
	if x.tty, err = pty.StartWithSize(x.cmd, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)}); err != nil {
		t.Fatal(err)
	}
	var answers sync.WaitGroup
	answers.Go(func() { // what a terminal says when it is asked
		b := make([]byte, 256)
		for {
			n, err := x.emu.Read(b)
			if err != nil {
				return
			}
			if _, err := x.tty.Write(b[:n]); err != nil {
				return
			}
		}
	})
	go func() {
		defer close(x.done)
		b := make([]byte, 64<<10)
		for {
			n, err := x.tty.Read(b) // EIO when the program has ended
			x.mu.Lock()
			x.raw.Write(b[:n])
			_, werr := x.emu.Write(b[:n])
			close(x.changed)
			x.changed = make(chan struct{})
			x.mu.Unlock()
			if err != nil || werr != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = x.cmd.Process.Kill() // it has ended, mostly
		<-x.done
		_ = x.cmd.Wait() // end has looked at it, or the test has failed
		x.tty.Close()
		x.emu.Close()
		answers.Wait()
		if t.Failed() {
			t.Logf("the terminal shows\n%s", x.text())
		}
	})
	return x
}

// text is what the terminal shows.
func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.emu.String()
}

// await waits until the terminal shows something.
func (x *terminal) await(what string, cond func(text string) bool) string {
	x.t.Helper()
	limit := time.After(patience)
	for {
		x.mu.Lock()
		text, changed := x.emu.String(), x.changed
		x.mu.Unlock()
		if cond(text) {
			return text
		}
		select {
		case <-changed:
		case <-x.done:
			if text := x.text(); !cond(text) {
				x.t.Fatalf("the program ended without %s", what)
			}
		case <-limit:
			x.t.Fatalf("no %s", what)
		}
	}
}

// shows waits for all of these texts at once.
func (x *terminal) shows(parts ...string) string {
	x.t.Helper()
	return x.await(fmt.Sprintf("%q", parts), func(text string) bool {
		for _, p := range parts {
			if !strings.Contains(text, p) {
				return false
			}
		}
		return true
	})
}

// keys types.
func (x *terminal) keys(text string) {
	x.t.Helper()
	if _, err := x.tty.WriteString(text); err != nil {
		x.t.Fatal(err)
	}
}

// resize changes the terminal's size.
func (x *terminal) resize(columns, rows int) {
	x.t.Helper()
	x.mu.Lock()
	x.emu.Resize(columns, rows)
	x.mu.Unlock()
	if err := pty.Setsize(x.tty, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)}); err != nil {
		x.t.Fatal(err)
	}
}

// end waits for the program's end and returns its exit code, and what stands on
// the terminal then.
func (x *terminal) end() (int, string) {
	x.t.Helper()
	select {
	case <-x.done:
	case <-time.After(patience):
		x.t.Fatal("the program does not end")
	}
	_ = x.cmd.Wait() // ProcessState has it all
	x.mu.Lock()
	alt := x.emu.IsAltScreen()
	x.mu.Unlock()
	if alt {
		x.t.Error("the terminal was left on the alternate screen")
	}
	return x.cmd.ProcessState.ExitCode(), x.text()
}

// written is all that the program has written, escape sequences included.
func (x *terminal) written() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.raw.String()
}

// signal sends one to the program.
func (x *terminal) signal(sig syscall.Signal) {
	x.t.Helper()
	if err := x.cmd.Process.Signal(sig); err != nil {
		x.t.Fatal(err)
	}
}

// svg is a picture of what the terminal shows.
func (x *terminal) svg() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	const cellWidth, cellHeight, edge = 8.4, 18, 14
	width, height := x.emu.Width(), x.emu.Height()
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %d" font-family="ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="14">`+"\n",
		float64(width)*cellWidth+2*edge, height*cellHeight+2*edge)
	b.WriteString(`<rect width="100%" height="100%" rx="8" fill="#16181d"/>` + "\n")
	for y := range height {
		for x0 := 0; x0 < width; {
			first := x.emu.CellAt(x0, y)
			end, run := x0, strings.Builder{}
			for end < width {
				c := x.emu.CellAt(end, y)
				if c == nil || first == nil || !c.Style.Equal(&first.Style) {
					break
				}
				run.WriteString(c.Content)
				end += max(1, c.Width)
			}
			if text := strings.TrimRight(run.String(), " "); text != "" {
				style := ""
				if first.Style.Attrs&1 != 0 { // bold
					style += ` font-weight="bold"`
				}
				if first.Style.Attrs&2 != 0 { // faint
					style += ` opacity="0.65"`
				}
				fmt.Fprintf(&b, `<text x="%.1f" y="%d" fill="%s"%s textLength="%.1f" xml:space="preserve">%s</text>`+"\n",
					edge+float64(x0)*cellWidth, edge+y*cellHeight+14, svgColor(first.Style.Fg), style,
					float64(ansi.StringWidth(text))*cellWidth, html.EscapeString(text))
			}
			x0 = max(end, x0+1)
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// svgColor is a terminal's colour as on many of them.
func svgColor(c color.Color) string {
	palette := map[ansi.BasicColor]string{
		ansi.Red: "#ff6b6b", ansi.Green: "#7bd88f", ansi.Yellow: "#f4c95d", ansi.Cyan: "#6ac7e2",
	}
	if basic, ok := c.(ansi.BasicColor); ok && palette[basic] != "" {
		return palette[basic]
	}
	return "#d8dee9"
}
