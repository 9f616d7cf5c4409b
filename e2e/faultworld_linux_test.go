package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wgexpose/wgexpose/e2e/lab"
	"github.com/wgexpose/wgexpose/e2e/origin"
	"github.com/wgexpose/wgexpose/e2e/process"
)

// labDomain is the edge's, and edgeName the name that agents find it by.
const (
	labDomain = "lab.test"
	edgeName  = "edge.lab.test"
)

// world is an edge in the cloud, an agent at home that shares a web application
// and an SSH server, and visitors beside the edge, so that what is between edge
// and agent is all that the link carries.
type world struct {
	t   *testing.T
	lab *lab.Lab
	dir string // holds edge/, agent/ and wgexpose.yml

	edge, agent *process.Process
	agentEnv    []string
	edgeEnv     []string
	program     string // the agent's
	clock       string // file with the offset of its clock

	web    *origin.Web
	sshd   *sshServer
	roots  *x509.CertPool
	public map[string]string // URL by tunnel
}

// worldOptions change what startWorld does.
type worldOptions struct {
	smallDisk bool // under the edge's state
	noUDP     bool // before the agent joins
	clock     bool // the agent's can be set, with setClock
	heap      bool // agent and edge tell of their garbage collections, which are many
}

func startWorld(t *testing.T, o worldOptions) *world {
	t.Helper()
	process.Need(t, "ssh")
	w := &world{t: t, lab: lab.Open(t), dir: t.TempDir(), public: make(map[string]string)}
	w.agentEnv = []string{"HTTPS_PROXY=", "https_proxy=", "ALL_PROXY=", "all_proxy="}
	if o.smallDisk {
		mount(t, filepath.Dir(w.edgeDir()), "size=4m")
	}
	if o.heap {
		w.edgeEnv = append(w.edgeEnv, "GODEBUG=gctrace=1", "GOGC=10")
		w.agentEnv = append(w.agentEnv, w.edgeEnv...)
	}
	w.program = binary
	if o.clock {
		var err error
		if w.program, err = wrongClock(); err != nil {
			t.Fatal(err)
		}
		w.clock = filepath.Join(w.dir, "clock")
		w.setClock(t, 0)
		w.agentEnv = append(w.agentEnv, clockVariable+"="+w.clock)
	}
	w.lab.DNS.Set(edgeName, lab.Cloud)
	if o.noUDP {
		w.lab.Filter(lab.NoUDP)
	}
	w.startEdge()
	w.roots = x509.NewCertPool()
	if pem := w.run(w.lab.Host, "", "edge", "ca", "--state", w.edgeDir()); !w.roots.AppendCertsFromPEM([]byte(pem)) {
		t.Fatalf("edge ca printed no certificate: %q", pem)
	}
	ln, err := w.lab.Home.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.web = origin.ServeWeb(t, ln)
	w.sshd = startSSHDWith(t, w.lab.Home.Start)
	token := w.run(w.lab.Host, "", "edge", "invite", "--name", "laptop", "--state", w.edgeDir())
	process.Run(t, process.Config{Path: binary, Args: []string{"join", "-", "--state", w.agentDir()}, Stdin: token, Env: w.agentEnv, Start: w.atHome()})
	config := fmt.Sprintf("tunnels:\n  web:\n    kind: http\n    upstream: %s\n  ssh:\n    kind: tcp\n    upstream: %s\n", w.web.Addr(), w.sshd.addr)
	if err := os.WriteFile(w.configFile(), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	w.startAgent()
	for _, name := range []string{"web", "ssh"} {
		w.public[name] = w.awaitUp(name).PublicURL
	}
	return w
}

// mount puts a file system in memory on dir until the test ends.
func mount(t *testing.T, dir, options string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount the small disk: %v", err)
		}
	})
}

func (w *world) edgeDir() string    { return filepath.Join(w.dir, "disk", "edge") }
func (w *world) agentDir() string   { return filepath.Join(w.dir, "agent") }
func (w *world) configFile() string { return filepath.Join(w.dir, "wgexpose.yml") }

// atHome starts commands at home, with the lab's resolver.
func (w *world) atHome() func(*exec.Cmd) error { return w.lab.DNS.Use(w.lab.Home.Start) }

func (w *world) run(at *lab.Space, stdin string, args ...string) string {
	w.t.Helper()
	return process.Run(w.t, process.Config{Path: binary, Args: args, Stdin: stdin, Env: w.agentEnv, Start: at.Start})
}

// try runs a command of the program to its end, and returns all that it said.
func (w *world) try(at *lab.Space, args ...string) (string, error) {
	var out bytes.Buffer
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := at.Start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

// startEdge starts the edge and waits until it serves.
func (w *world) startEdge() {
	w.t.Helper()
	w.edge = process.Start(w.t, process.Config{Name: "edge", Path: binary, Env: w.edgeEnv, Start: w.lab.Host.Start, Args: []string{
		"edge", "--json", "--state", w.edgeDir(), "--domain", labDomain, "--tls", "internal", "--log-level", "info",
		"--endpoint", edgeName, "--listen-wg", ":51820,:51821", "--listen-https", ":443", "--listen-http", ":80",
	}})
	w.edge.Await("the edge serves", func(e process.Event) bool { return e.Event == "ready" })
}

// startAgent starts the agent; its tunnels may not be up yet.
func (w *world) startAgent() {
	w.t.Helper()
	w.agent = process.Start(w.t, process.Config{Name: "agent", Path: w.program, Env: w.agentEnv, Start: w.atHome(), Args: []string{
		"up", "--json", "--state", w.agentDir(), "--config", w.configFile(), "--log-level", "debug",
	}})
}

func (w *world) awaitUp(name string) process.Event {
	w.t.Helper()
	e := w.agent.Await(name+" is up", func(e process.Event) bool {
		return e.Event == "tunnel" && e.Name == name && (e.State == "up" || e.State == "error")
	})
	if e.State != "up" {
		w.t.Fatalf("tunnel %s: %+v", name, *e.Error)
	}
	return e
}

// awaitLink waits for the link to be up over the transport, in events after the
// first n.
func (w *world) awaitLink(n int, transport string) {
	w.t.Helper()
	w.agent.AwaitAfter(n, "the link is up over "+transport, func(e process.Event) bool {
		return e.Event == "link" && e.State == "up" && e.Transport == transport
	})
}

func kill(p *process.Process) {
	p.Kill()
	p.Wait()
}

// transport is a visitor's, who finds every name at the edge.
func (w *world) transport() *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: w.roots},
		Protocols:       &protocols,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return w.lab.Host.DialContext(ctx, network, net.JoinHostPort(lab.Cloud.String(), port))
		},
	}
}

// sshPort is the public port of the SSH server.
func (w *world) sshPort() string {
	w.t.Helper()
	u, err := url.Parse(w.public["ssh"])
	if err != nil || u.Port() == "" {
		w.t.Fatalf("ssh has the public address %q (%v)", w.public["ssh"], err)
	}
	return u.Port()
}

// status asks the agent's command how it is.
func (w *world) status(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, binary, "status", "--json", "--state", w.agentDir())
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}
