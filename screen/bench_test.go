package screen

import (
	"fmt"
	"testing"

	"github.com/wgexpose/wgexpose/agent"
)

// BenchmarkLook is one look into the feed with 100 new visits, and the layout of
// what it has: what the screen costs beside the terminal's own drawing.
func BenchmarkLook(b *testing.B) {
	m := newModel(Config{Title: "laptop at example.com"}, newFeed(nil))
	m.width, m.height = 120, 40
	m.feed.event(linkUp())
	m.feed.event(tunnelUp("app", "http", "https://app.example.com", "http://127.0.0.1:8089"))
	id := 0
	for b.Loop() {
		st := agent.Status{}
		for range 100 {
			id++
			st.Visits = append(st.Visits, agent.Visit{ID: fmt.Sprint(id), Start: noon, Took: 12e6, Visitor: "198.51.100.23",
				Method: "GET", Path: "/items/1?page=2", Status: 200, ToVisitor: 1234})
		}
		m.feed.setStatus(st)
		m.news()
		m.View()
	}
}
