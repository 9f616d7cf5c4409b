package harness_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/edge"
	"github.com/wgexpose/wgexpose/internal/harness"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/store"
)

// Names and ports, given and chosen, are the same after a restart of the edge,
// and serve again without the agent being touched.
func TestNamesOutliveTheEdge(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	a := e.AddAgent("laptop")
	web, sock := says(t, "web"), echo(t)
	run := a.Publish(harness.HTTP("app", web), harness.HTTP("", says(t, "generated")), harness.TCP("ssh", sock, 0))
	urls := map[string]string{}
	up := func(after int) {
		t.Helper()
		need := 3
		for need > 0 {
			var ev agent.Event
			ev, after = run.Wait(after, "all tunnels up", func(e agent.Event) bool { return e.Event == agent.EventTunnel && e.State == agent.TunnelUp })
			if was, ok := urls[ev.Name]; ok && was != ev.PublicURL {
				t.Errorf("%s moved from %s to %s", ev.Name, was, ev.PublicURL)
			}
			urls[ev.Name] = ev.PublicURL
			need--
		}
		if len(urls) != 3 {
			t.Fatalf("the tunnels are %v", urls)
		}
	}
	up(0)
	for range 2 {
		seen := run.Seen()
		stopped := time.Now()
		e.Restart()
		up(seen)
		t.Logf("serves again %v after the edge was told to stop", time.Since(stopped))
		client := e.Client()
		for name, url := range urls {
			if strings.HasPrefix(url, "tcp://") {
				c := e.Dial(url)
				io.WriteString(c, "x")
				c.CloseWrite()
				if got, err := io.ReadAll(c); err != nil || string(got) != "x" {
					t.Errorf("%s: %q, %v", name, got, err)
				}
				continue
			}
			if status, code, body := e.Get(client, url); status != http.StatusOK || body == "" {
				t.Errorf("%s: %d %s %q", name, status, code, body)
			}
		}
	}
}

// The same agent gets its names back in its next process; another one does not
// get them, and is told whose they are.
func TestNamesHaveOneOwner(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	a, b := e.AddAgent("laptop"), e.AddAgent("desktop")
	run := a.Publish(harness.HTTP("app", says(t, "a")), harness.HTTP("", says(t, "random")), harness.TCP("ssh", echo(t), 0))
	port := run.WaitUp("ssh")
	run.WaitUp("app")
	run.Stop()
	err := b.Publish(harness.HTTP("app", says(t, "b"))).End()
	if control.CodeOf(err) != control.CodeNameTaken || !strings.Contains(err.Error(), "laptop") {
		t.Errorf("the other agent: %v", err)
	}
	run = a.Publish(harness.TCP("ssh", echo(t), 0), harness.HTTP("app", says(t, "a again")))
	if got := run.WaitUp("ssh"); got != port {
		t.Errorf("the port moved from %s to %s", port, got)
	}
	if _, _, body := e.Get(e.Client(), run.WaitUp("app")); body != "a again" {
		t.Errorf("got %q", body)
	}
	run.Stop()
	// Given back by the edge's owner, it is anybody's.
	if err := e.Admin().Release(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if _, _, body := e.Get(e.Client(), b.Publish(harness.HTTP("app", says(t, "b now"))).WaitUp("app")); body != "b now" {
		t.Errorf("got %q", body)
	}
}

// A revoked agent is cut off: open connections and requests break, new ones find
// nothing, and it cannot come back with its key.
func TestRevokeCutsOff(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	a := e.AddAgent("laptop")
	begun := make(chan struct{}, 1)
	stream := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "first part")
		w.(http.Flusher).Flush()
		begun <- struct{}{}
		<-r.Context().Done()
	})
	run := a.Publish(harness.HTTP("app", stream), harness.TCP("echo", echo(t), 0))
	url := run.WaitUp("app")
	c := e.Dial(run.WaitUp("echo"))
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	client := e.Client()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	<-begun
	node := a.OpenNode // what the agent could still try with its key, later

	start := time.Now()
	if err := e.Admin().Revoke(t.Context(), "laptop"); err != nil {
		t.Fatal(err)
	}
	t.Logf("revoked in %v", time.Since(start))
	if _, err := io.ReadAll(c); err == nil || isTimeout(err) {
		t.Errorf("the open connection: %v, want a reset", err)
	}
	if body, err := io.ReadAll(resp.Body); err == nil || isTimeout(err) {
		t.Errorf("the open request ended with %q and %v, want it broken", body, err)
	}
	t.Logf("cut off after %v", time.Since(start))
	if err := run.End(); control.CodeOf(err) != control.CodeRevoked {
		t.Errorf("the agent ended with %v", err)
	}
	if status, code, _ := e.Get(client, url); status != http.StatusNotFound {
		t.Errorf("a new request: %d %s", status, code)
	}
	n := node()
	short, cancel := context.WithTimeout(t.Context(), noWay)
	defer cancel()
	if s, err := n.Control().Events(short); err == nil {
		s.Close()
		t.Error("the revoked key is let in")
	}
	if p, _, err := n.Device.Peer(edgeKey(t, e)); err != nil || p.RxBytes != 0 {
		t.Errorf("the revoked key is answered: %+v, %v", p, err)
	}
	// With a new invite the machine is a new agent, under a new key.
	again, err := agent.Join(t.Context(), a.Dir, e.Invite(edge.InviteOptions{}), agent.JoinOptions{Name: "laptop"})
	if err != nil || again.Node == a.Node || again.Name != "laptop" {
		t.Errorf("joined again as %+v, %v", again, err)
	}
}

func edgeKey(t testing.TB, e *harness.Edge) keys.Public {
	t.Helper()
	k, err := keys.Load(e.Dir.Path("edge.key"))
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}

// Invites that let nobody in say why, over the wire.
func TestInvitesSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	join := func(i keys.Invite) error {
		_, err := agent.Join(t.Context(), emptyDir(t), i, agent.JoinOptions{Name: "laptop"})
		return err
	}
	used, revoked, expired := e.Invite(edge.InviteOptions{}), e.Invite(edge.InviteOptions{}), e.Invite(edge.InviteOptions{})
	if err := join(used); err != nil {
		t.Fatal(err)
	}
	if err := join(used); control.CodeOf(err) != control.CodeInviteUsed {
		t.Errorf("used up: %v", err)
	}
	if err := e.Admin().RevokeInvite(t.Context(), store.InviteID(revoked.Key.Public())); err != nil {
		t.Fatal(err)
	}
	if err := join(revoked); control.CodeOf(err) != control.CodeInviteRevoked {
		t.Errorf("revoked: %v", err)
	}
	twice := e.Invite(edge.InviteOptions{Uses: 2, Name: "nas"})
	for _, want := range []string{"nas", "nas-2"} {
		j, err := agent.Join(t.Context(), emptyDir(t), twice, agent.JoinOptions{})
		if err != nil || j.Name != want {
			t.Errorf("joined as %q, %v; want %s", j.Name, err, want)
		}
	}
	if err := join(twice); control.CodeOf(err) != control.CodeInviteUsed {
		t.Errorf("used twice: %v", err)
	}
	// Its time is over at the edge, whatever the agent's clock says.
	e.Stop()
	expire(t, e.Dir, store.InviteID(expired.Key.Public()))
	e.StartAgain()
	if err := join(expired); control.CodeOf(err) != control.CodeInviteExpired {
		t.Errorf("expired: %v", err)
	}
	// The holder of an invite is no agent.
	c := e.OpenInvite(expired).Control()
	if _, err := c.Publish(t.Context(), control.PublishRequest{}); control.CodeOf(err) != control.CodeNotEnrolled {
		t.Errorf("an invite publishes: %v", err)
	}
	if s, err := c.Events(t.Context()); control.CodeOf(err) != control.CodeNotEnrolled {
		if err == nil {
			s.Close()
		}
		t.Errorf("an invite opens a session: %v", err)
	}
}

// expire moves the end of an invite into the past, in the database.
func expire(t *testing.T, dir *statedir.Dir, id string) {
	t.Helper()
	db, err := store.OpenBolt(dir.Path("edge.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	i, rev, err := store.Read[store.Invite](t.Context(), db, store.InviteKey(id))
	if err != nil {
		t.Fatal(err)
	}
	i.Expires = time.Now().Add(-time.Minute).UTC()
	op, err := store.Put(store.InviteKey(id), i, rev)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Commit(t.Context(), op); err != nil {
		t.Fatal(err)
	}
}

// With the edge stopped, the same admin works on its database.
func TestAdminWithoutTheEdge(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	a := e.AddAgent("laptop")
	a.Publish(harness.HTTP("app", says(t, "a"))).WaitUp("app")
	if row := a.Row(); row.State != edge.StateUp || !row.Joined || row.Rx == 0 || row.Endpoint == "" || row.Version != "test" || row.Tunnels != 1 {
		t.Errorf("while the edge runs: %+v", row)
	}
	e.Stop()
	if row := a.Row(); row.State != "" || !row.Joined || row.Rx != 0 || row.Endpoint == "" {
		t.Errorf("with the edge stopped: %+v", row)
	}
	i := e.Invite(edge.InviteOptions{})
	e.StartAgain()
	if _, err := agent.Join(t.Context(), emptyDir(t), i, agent.JoinOptions{Name: "desktop"}); err != nil {
		t.Errorf("an invite of the stopped edge: %v", err)
	}
}

// A second edge on one state directory is refused, and disturbs nothing.
func TestTwoEdgesOnOneDirectory(t *testing.T) {
	t.Parallel()
	e := harness.Start(t, harness.Options{})
	a := e.AddAgent("laptop")
	url := a.Publish(harness.HTTP("app", says(t, "a"))).WaitUp("app")
	second, err := edge.New(edge.Config{Dir: e.Dir, Domain: e.Domain, TLS: "off", HTTP: newListener(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), e.Dir.String()) {
		t.Errorf("the second edge: %v", err)
	}
	if status, _, _ := e.Get(e.Client(), url); status != http.StatusOK {
		t.Errorf("then the first one answers %d", status)
	}
}
