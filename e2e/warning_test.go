package e2e

import (
	"io"
	"testing"

	"github.com/wgexpose/wgexpose/e2e/origin"
	"github.com/wgexpose/wgexpose/e2e/process"
	"github.com/wgexpose/wgexpose/internal/browser"
)

// A browser is warned where the tunnel asks for it, and where the edge does and has
// chosen the name; after the link it is not warned again. Programs never are.
func TestWarning(t *testing.T) {
	t.Setenv("WGEXPOSE_WARN_RANDOM_NAMES", "true") // for the edge
	web := origin.StartWeb(t)
	s := startSystem(t,
		share{name: "named", kind: "http", upstream: web.Addr()},
		share{name: "careful", kind: "http", upstream: web.Addr(), more: "warning_page: true"})
	random := process.Start(t, process.Config{Name: "random", Path: binary, Args: []string{
		"http", web.Addr(), "--json", "--state", s.agentDir()}})
	s.public["random"] = random.Await("up", func(e process.Event) bool { return e.Event == "tunnel" && e.State == "up" }).PublicURL

	client := s.client(true)
	b := browser.Open(t, "--ignore-certificate-errors")
	for name, warned := range map[string]bool{"named": false, "careful": true, "random": true} {
		answer, err := client.Get(s.public[name])
		if err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || string(page) != origin.Greeting {
			t.Errorf("%s: a program got %q, %v", name, page, err)
		}
		b.Navigate(s.public[name] + "/?a=b")
		if warned {
			b.Until(`document.querySelector('h1').innerText === 'You are about to visit ' + location.hostname`)
			b.Eval(`setTimeout(() => document.querySelector('a').click()); true`) // real input before the first paint is dropped
		}
		b.Until(`document.body.innerText.includes('hello from the origin') && location.search === '?a=b'`)
		b.Navigate(s.public[name] + "/")
		b.Until(`document.body.innerText.includes('hello from the origin')`)
	}
}
