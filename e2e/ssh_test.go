package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/wgexpose/wgexpose/e2e/origin"
	"github.com/wgexpose/wgexpose/e2e/process"
)

// sshServer is OpenSSH's server with keys and configuration of its own.
type sshServer struct {
	*process.Process
	addr       string
	key        string // of the user, private
	knownHosts string // has the host key, for any name
	user       string
}

// startSSHD runs sshd on a free port of the loopback interface.
func startSSHD(t *testing.T) *sshServer { return startSSHDWith(t, (*exec.Cmd).Start) }

// startSSHDWith is startSSHD with another way to start the program, such as in a
// network namespace.
func startSSHDWith(t *testing.T, start func(*exec.Cmd) error) *sshServer {
	t.Helper()
	sshd, keygen := process.Need(t, "sshd"), process.Need(t, "ssh-keygen")
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if me.Uid == "0" {
		// sshd separates its privileges there, and starting it from a shell
		// leaves out who else makes the directory.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"host", "user"} {
		process.Run(t, process.Config{Path: keygen, Args: []string{"-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file(name)}})
	}
	read := func(name string) string {
		b, err := os.ReadFile(file(name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	write := func(name, text string) {
		if err := os.WriteFile(file(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("authorized_keys", read("user.pub"))
	write("known_hosts", "* "+read("host.pub"))
	// sshd takes no port 0, and another program may take a free one first.
	for range 5 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := ln.Addr().(*net.TCPAddr)
		ln.Close()
		write("sshd_config", fmt.Sprintf(`
ListenAddress 127.0.0.1:%d
HostKey %s
AuthorizedKeysFile %s
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
LogLevel VERBOSE
Subsystem sftp internal-sftp
`, addr.Port, file("host"), file("authorized_keys")))
		p := process.Start(t, process.Config{Name: "sshd", Path: sshd, Args: []string{"-D", "-e", "-f", file("sshd_config")}, Start: start})
		var listens bool
		p.AwaitLog("sshd listens, or cannot", func(log string) bool {
			listens = strings.Contains(log, "Server listening on")
			return listens || strings.Contains(log, "Cannot bind any address")
		})
		if listens {
			return &sshServer{Process: p, addr: addr.String(), key: file("user"), knownHosts: file("known_hosts"), user: me.Username}
		}
	}
	t.Fatal("sshd found no free port")
	return nil
}

// options are those that ssh and scp share. from is the visitor's own address.
func (s *sshServer) options(from string) []string {
	o := []string{
		"-F", os.DevNull, "-i", s.key,
		"-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
		"-o", "UserKnownHostsFile=" + s.knownHosts, "-o", "ConnectTimeout=30", "-o", "LogLevel=ERROR",
	}
	if from != "" {
		o = append(o, "-o", "BindAddress="+from)
	}
	return o
}

func TestOpenSSH(t *testing.T) {
	ssh, scp := process.Need(t, "ssh"), process.Need(t, "scp")
	sshd := startSSHD(t)
	s := startSystem(t, share{name: "ssh", kind: "tcp", upstream: sshd.addr})
	host, port, err := net.SplitHostPort(s.host("ssh"))
	if err != nil {
		t.Fatal(err)
	}
	if host != domain {
		t.Errorf("public address %q is not at the edge's domain", s.public["ssh"])
	}
	// The agent dials sshd from 127.0.0.1; a visitor with another address shows
	// who is in whose log.
	visitor, agent := "", "127.0.0.1"
	if runtime.GOOS == "linux" {
		visitor = "127.0.0.2"
	}
	target := sshd.user + "@127.0.0.1"

	t.Run("ssh", func(t *testing.T) {
		out := process.Run(t, process.Config{Path: ssh, Stdin: "typed\n",
			Args: append(sshd.options(visitor), "-p", port, target, `echo "from $SSH_CLIENT"; cat; echo over here >&2`)})
		lines := strings.Split(out, "\n")
		if !strings.HasPrefix(lines[0], "from "+agent+" ") || len(lines) < 2 || lines[1] != "typed" {
			t.Errorf("the session says %q", out)
		}
	})
	t.Run("exit status", func(t *testing.T) {
		p := process.Start(t, process.Config{Name: "ssh", Path: ssh, Args: append(sshd.options(visitor), "-p", port, target, "exit 7")})
		if code := p.Wait(); code != 7 {
			t.Errorf("exit status %d, want 7", code)
		}
	})
	t.Run("scp", func(t *testing.T) {
		const size = 32 << 20
		dir := t.TempDir()
		local, remote, back := filepath.Join(dir, "local"), filepath.Join(dir, "remote"), filepath.Join(dir, "back")
		f, err := os.Create(local)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadFrom(origin.Data(size)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		options := append(sshd.options(visitor), "-P", port, "-q")
		process.Run(t, process.Config{Path: scp, Args: append(options, local, target+":"+remote)})
		process.Run(t, process.Config{Path: scp, Args: append(options, target+":"+remote, back)})
		_, want, err := origin.Sum(origin.Data(size))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{remote, back} {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if n, sum, err := origin.Sum(f); err != nil || n != size || sum != want {
				t.Errorf("%s has %d bytes with sum %s (%v), want %d with %s", path, n, sum, err, size, want)
			}
		}
	})
	t.Run("a key that sshd does not know", func(t *testing.T) {
		other := filepath.Join(t.TempDir(), "other")
		process.Run(t, process.Config{Path: process.Need(t, "ssh-keygen"), Args: []string{"-q", "-t", "ed25519", "-N", "", "-f", other}})
		options := sshd.options(visitor)
		options[3] = other
		p := process.Start(t, process.Config{Name: "ssh", Path: ssh, Args: append(options, "-p", port, target, "true")})
		if code := p.Wait(); code != 255 || !strings.Contains(p.Stderr(), "Permission denied") {
			t.Errorf("exit status %d: %s", code, p.Stderr())
		}
	})

	// Without a PROXY header sshd knows the agent only; the agent knows the
	// visitor.
	sshd.AwaitLog("sshd's log has the agent's address", func(log string) bool {
		return strings.Contains(log, "Accepted publickey for "+sshd.user+" from "+agent+" port ")
	})
	if visitor != "" {
		if strings.Contains(sshd.Stderr(), visitor) {
			t.Errorf("sshd's log has the visitor's address %s:\n%s", visitor, sshd.Stderr())
		}
		s.agent.AwaitLog("the agent's log has the visitor's address", func(log string) bool {
			for line := range strings.Lines(log) {
				if strings.Contains(line, "tunnel=ssh") && strings.Contains(line, "visitor="+visitor+":") {
					return true
				}
			}
			return false
		})
	}
}
