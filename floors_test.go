package wgexpose_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "github.com/wgexpose/wgexpose"

// floors says how high each package of this module stands. A package imports
// from lower floors only, never from its own. "." is the root.
var floors = map[string]int{
	"keys":         0,
	"meter":        0,
	"listening":    0,
	"localweb":     0,
	"statedir":     0,
	"tunnel":       0,
	"relay":        0,
	"netstack":     0,
	"netwatch":     0,
	"pathmtu":      0,
	"rest":         0,
	"service":      0,
	"static":       0,
	"inspect":      1,
	"store":        1,
	"wg":           1,
	"proxy":        1,
	"control":      2,
	"certs":        2,
	"edge":         3,
	"agent":        3,
	"admin":        3,
	"configs":      4,
	"screen":       4,
	".":            4,
	"cmd/wgexpose": 5,

	// For tests, see testSupport.
	"store/storetest":    2,
	"internal/ports":     0,
	"internal/logbuf":    0,
	"internal/smalldisk": 0,
	"internal/zone":      0,
	"internal/pebble":    1,
	"internal/harness":   4,
	"internal/browser":   0,
}

// testSupport are the packages that tests alone may import.
var testSupport = []string{"store/storetest", "internal/ports", "internal/logbuf", "internal/smalldisk", "internal/zone", "internal/pebble", "internal/harness", "internal/browser"}

// restricted says who may import a package of another module, with only empty, nobody.
var restricted = []struct {
	path   string // and all below it
	only   []string
	reason string
	tested bool // tests may
}{
	{
		"github.com/spf13/viper", []string{"configs"},
		"viper splits names at dots, lower-cases them and knows nothing of line numbers; configs is the one place that works around it, and all others get plain structs", false,
	},
	{
		"golang.zx2c4.com/wireguard/tun/netstack", []string{"e2e", "bench"},
		"it has no batches, no offloads and races when it closes; the package netstack replaces it, and it serves for comparison only", false,
	},
	{"html/template", nil, templateReason, true},
	{"text/template", nil, templateReason, true},
}

// strangers are pairs of packages of which the first must not import the
// second, though it lies lower.
var strangers = []struct{ from, to, reason string }{
	{"wg", "netstack", "both meet at wireguard-go's tun.Device, and edge or agent joins them; each can then be tested, measured and replaced by itself"},
}

const (
	floorReason    = "imports go strictly downward, so that a package can be read, tested and reused with nothing but what lies below it"
	unknownAdvice  = "add it to floors in floors_test.go, on the lowest floor above all that it imports, and to docs/architecture.md"
	supportReason  = "it brings the package testing, its flags and test doubles into the program; import it in _test.go files"
	templateReason = "templates call methods by name, so with them the linker keeps every exported method of every type, a quarter of the program; html.EscapeString and fmt do for small pages"
	docReason      = "readers and pkg.go.dev look for one comment in one place, and several are joined in the order of file names"
)

// goFile is what the rules look at in a source file.
type goFile struct {
	name    string // from the root: keys/doc.go
	imports []string
	doc     bool // it has a package comment
	test    bool
}

// packages reads the Go files of the module in fsys by directory, those of
// every system, whatever can be built here. Other modules inside of it are left
// out.
func packages(fsys fs.FS) (map[string][]goFile, error) {
	found := map[string][]goFile{}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := path.Base(name)
		if d.IsDir() {
			if name == "." {
				return nil
			}
			if base == "testdata" || base == "vendor" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
				return fs.SkipDir
			}
			if _, err := fs.Stat(fsys, path.Join(name, "go.mod")); err == nil {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
			return nil // as the go command does
		}
		source, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		// Text leaves directives such as //go:build out.
		f := goFile{name: name, doc: strings.TrimSpace(parsed.Doc.Text()) != "", test: strings.HasSuffix(base, "_test.go")}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, imported)
		}
		found[path.Dir(name)] = append(found[path.Dir(name)], f)
		return nil
	})
	return found, err
}

// within says whether a path is dir or lies below it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// own gives the directory of a package of this module.
func own(imported string) (string, bool) {
	if imported == module {
		return ".", true
	}
	return strings.CutPrefix(imported, module+"/")
}

// violations lists what breaks a rule in a tree, each with the reason for it.
func violations(fsys fs.FS) ([]string, error) {
	all, err := packages(fsys)
	if err != nil {
		return nil, err
	}
	var broken []string
	report := func(format string, args ...any) { broken = append(broken, fmt.Sprintf(format, args...)) }
	for _, dir := range slices.Sorted(maps.Keys(all)) {
		files := all[dir]
		code := slices.ContainsFunc(files, func(f goFile) bool { return !f.test })
		if _, known := floors[dir]; !known && code {
			report("package %s has no floor: %s", dir, unknownAdvice)
		}
		for _, f := range files {
			for _, imported := range f.imports {
				checkImport(dir, f, imported, report)
			}
		}
		if code {
			checkDoc(dir, files, report)
		}
	}
	return broken, nil
}

func checkImport(dir string, f goFile, imported string, report func(string, ...any)) {
	for _, r := range restricted {
		if within(imported, r.path) && !(f.test && r.tested) && !slices.ContainsFunc(r.only, func(o string) bool { return within(dir, o) }) {
			may := "nobody"
			if len(r.only) > 0 {
				may = "only " + strings.Join(r.only, " and ")
			}
			report("%s imports %s, which %s may: %s", f.name, imported, may, r.reason)
		}
	}
	target, ours := own(imported)
	if !ours || f.test { // tests join what they need
		return
	}
	if slices.Contains(testSupport, target) && !slices.Contains(testSupport, dir) {
		report("%s imports %s, which is for tests only: %s", f.name, imported, supportReason)
	}
	for _, s := range strangers {
		if within(dir, s.from) && within(target, s.to) {
			report("%s imports %s: %s", f.name, imported, s.reason)
		}
	}
	from, fromKnown := floors[dir]
	to, toKnown := floors[target]
	if fromKnown && toKnown && to >= from {
		report("%s, on floor %d, imports %s on floor %d: %s", f.name, from, imported, to, floorReason)
	}
}

func checkDoc(dir string, files []goFile, report func(string, ...any)) {
	var docs []string
	for _, f := range files {
		if f.doc && !f.test {
			docs = append(docs, f.name)
		}
	}
	switch len(docs) {
	case 1:
	case 0:
		report("package %s has no package comment: write one, an example or its idea first, in doc.go or its main file", dir)
	default:
		report("package %s has %d package comments, in %s: keep one; %s", dir, len(docs), strings.Join(docs, ", "), docReason)
	}
}

// TestFloors holds the whole module to the rules above.
func TestFloors(t *testing.T) {
	root := os.DirFS(".")
	all, err := packages(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(all["keys"]) == 0 || len(all["."]) == 0 {
		t.Fatalf("the packages were not found: %v", slices.Sorted(maps.Keys(all)))
	}
	broken, err := violations(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range broken {
		t.Error(b)
	}
}

// TestFloorsModule: the rules know the module by its name.
func TestFloorsModule(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if first, _, _ := strings.Cut(string(mod), "\n"); strings.TrimSpace(first) != "module "+module {
		t.Errorf("go.mod starts with %q; floors_test.go says %s", first, module)
	}
}

// TestFloorRules: each rule fires when it is broken, and only then.
func TestFloorRules(t *testing.T) {
	source := func(pkg string, imports ...string) string {
		s := "// Package " + pkg + " is a sample.\npackage " + pkg + "\n"
		for _, i := range imports {
			s += "import _ " + strconv.Quote(i) + "\n"
		}
		return s
	}
	plain := func(pkg string, imports ...string) string {
		_, s, _ := strings.Cut(source(pkg, imports...), "\n")
		return s
	}
	const (
		viper    = "github.com/spf13/viper"
		upstream = "golang.zx2c4.com/wireguard/tun/netstack"
	)
	for name, c := range map[string]struct {
		files map[string]string
		want  string // "" is allowed
	}{
		"down":                       {map[string]string{"edge/a.go": source("edge", module+"/control", module+"/keys", "fmt")}, ""},
		"same floor":                 {map[string]string{"edge/a.go": source("edge", module+"/agent")}, "edge/a.go, on floor 3, imports " + module + "/agent on floor 3: imports go strictly downward"},
		"up":                         {map[string]string{"keys/a.go": source("keys", module+"/store")}, "keys/a.go, on floor 0, imports"},
		"up to the root":             {map[string]string{"agent/a.go": source("agent", module)}, "imports " + module + " on floor 4"},
		"up in a file of another OS": {map[string]string{"keys/a_windows.go": source("keys", module+"/store")}, "keys/a_windows.go, on floor 0"},
		"up under a build tag":       {map[string]string{"keys/a.go": "//go:build never\n\n" + source("keys", module+"/store")}, "on floor 0, imports"},
		"up in a test":               {map[string]string{"keys/a.go": source("keys"), "keys/a_test.go": plain("keys", module+"/store")}, ""},
		"a module of like name":      {map[string]string{"keys/a.go": source("keys", module+"2/store")}, ""},
		"unknown package":            {map[string]string{"util/a.go": source("util")}, "package util has no floor: add it to floors in floors_test.go"},
		"unknown below a known one":  {map[string]string{"edge/x/a.go": source("x")}, "package edge/x has no floor"},
		"a folder of tests":          {map[string]string{"suite/a_test.go": plain("suite", module+"/edge")}, ""},
		"test support in a test":     {map[string]string{"store/a.go": source("store"), "store/a_test.go": plain("store", module+"/store/storetest")}, ""},
		"test support elsewhere":     {map[string]string{"edge/a.go": source("edge", module+"/store/storetest")}, "which is for tests only"},
		"viper in configs":           {map[string]string{"configs/a.go": source("configs", viper)}, ""},
		"viper elsewhere":            {map[string]string{"cmd/wgexpose/a.go": source("main", viper)}, "which only configs may: viper splits names"},
		"viper in a test elsewhere":  {map[string]string{"edge/a.go": source("edge"), "edge/a_test.go": plain("edge", viper)}, "edge/a_test.go imports"},
		"viper's subpackage":         {map[string]string{"edge/a.go": source("edge", viper+"/remote")}, "which only configs may"},
		"templates":                  {map[string]string{"proxy/a.go": source("proxy", "html/template")}, "which nobody may: templates call methods by name"},
		"templates in a test":        {map[string]string{"proxy/a.go": source("proxy"), "proxy/a_test.go": plain("proxy", "html/template")}, ""},
		"wg and netstack":            {map[string]string{"wg/a.go": source("wg", module+"/netstack")}, "both meet at wireguard-go's tun.Device"},
		"netstack and wg":            {map[string]string{"netstack/a.go": source("netstack", module+"/wg")}, "netstack/a.go, on floor 0"},
		"wireguard's netstack":       {map[string]string{"netstack/a.go": source("netstack", upstream)}, "which only e2e and bench may: it has no batches"},
		"wireguard's in a test":      {map[string]string{"wg/a.go": source("wg"), "wg/a_test.go": plain("wg", upstream)}, "wg/a_test.go imports"},
		"wireguard's tun":            {map[string]string{"netstack/a.go": source("netstack", "golang.zx2c4.com/wireguard/tun")}, ""},
		"no package comment":         {map[string]string{"keys/a.go": plain("keys")}, "package keys has no package comment"},
		"comment of a directive":     {map[string]string{"keys/a.go": "//go:generate true\n" + plain("keys")}, "package keys has no package comment"},
		"comment in a test only":     {map[string]string{"keys/a.go": plain("keys"), "keys/a_test.go": source("keys")}, "package keys has no package comment"},
		"two package comments":       {map[string]string{"keys/a.go": source("keys"), "keys/b.go": source("keys")}, "package keys has 2 package comments, in keys/a.go, keys/b.go"},
		"a licence above":            {map[string]string{"keys/a.go": "// Licence.\n\n" + plain("keys"), "keys/b.go": source("keys")}, ""},
		"another module inside":      {map[string]string{"e2e/go.mod": "module x\n", "e2e/a.go": plain("e2e", upstream, viper)}, ""},
		"testdata":                   {map[string]string{"edge/testdata/a.go": plain("x", viper)}, ""},
	} {
		tree := fstest.MapFS{"go.mod": {Data: []byte("module " + module + "\n")}}
		for file, text := range c.files {
			tree[file] = &fstest.MapFile{Data: []byte(text)}
		}
		broken, err := violations(tree)
		switch {
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want == "" && len(broken) > 0:
			t.Errorf("%s: reported as %q", name, broken)
		case c.want != "" && (len(broken) != 1 || !strings.Contains(broken[0], c.want)):
			t.Errorf("%s: reported %q; want one with %q", name, broken, c.want)
		}
	}
	if _, err := violations(fstest.MapFS{"keys/a.go": {Data: []byte("no Go")}}); err == nil {
		t.Error("a file that does not parse was passed over")
	}
}
