package wgexpose_test

import (
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// links are those of Markdown, pictures too.
var links = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// What a page of the documentation links to within the repository is there.
func TestLinks(t *testing.T) {
	seen := 0
	err := filepath.WalkDir(".", func(page string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(page) != ".md" {
			return nil
		}
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		for _, link := range links.FindAllStringSubmatch(string(text), -1) {
			u, err := url.Parse(link[1])
			if err != nil {
				t.Errorf("%s: %s: %v", page, link[1], err)
				continue
			}
			if u.Scheme != "" || u.Path == "" {
				continue
			}
			seen++
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), filepath.FromSlash(u.Path))); err != nil {
				t.Errorf("%s: %s is not there", page, link[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen == 0 {
		t.Error("no links were found at all")
	}
}

// No two decisions have one number, and all of them are listed. A number may be
// that of a decision which is under way.
func TestDecisions(t *testing.T) {
	pages, err := filepath.Glob("docs/adr/0*.md")
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile("docs/adr/README.md")
	if err != nil {
		t.Fatal(err)
	}
	taken := map[string]string{}
	for _, page := range pages {
		name := filepath.Base(page)
		if other := taken[name[:4]]; other != "" {
			t.Errorf("%s has the number of %s", name, other)
		}
		taken[name[:4]] = name
		if !strings.Contains(string(list), "("+name+")") {
			t.Errorf("%s is not in the list", name)
		}
	}
}
