package e2e

import (
	"bytes"
	"os"
	"testing"
)

// TestProgramHasNoTemplates: one use of text/template, by whichever dependency, and the
// linker keeps all methods of all types (ADR 52). Names of functions stand in the
// program as they are, for stack traces.
func TestProgramHasNoTemplates(t *testing.T) {
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(program, []byte("net/http.(*Server).Serve\x00")) {
		t.Fatal("names of functions do not stand in the program as this test expects them")
	}
	if bytes.Contains(program, []byte("text/template.(*state).")) {
		t.Error("text/template is linked in: `go build -ldflags=-dumpdep ./cmd/wgexpose 2>&1 | grep '> text/template.(.Template).Execute'` tells who calls it")
	}
}
