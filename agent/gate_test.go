package agent

import (
	"testing"
)

func TestGate(t *testing.T) {
	var g gate
	for range 2 {
		if !g.enter() {
			t.Fatal("an open gate let nobody in")
		}
	}
	if n := g.count(); n != 2 {
		t.Fatalf("%d inside", n)
	}
	empty := g.shut()
	if g.enter() {
		t.Error("a shut gate let somebody in")
	}
	g.leave()
	select {
	case <-empty:
		t.Error("empty with one inside")
	default:
	}
	g.leave()
	<-empty
	<-g.shut()
	var never gate
	<-never.shut()
}
