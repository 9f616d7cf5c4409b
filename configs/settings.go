package configs

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// setting is one key of a process, in all its three places.
type setting struct {
	key   string // as in the file: listen_wg
	value string // the default, as text; empty: none
	usage string // for --help; the word in backquotes names the value
}

func (s setting) flag() string     { return strings.ReplaceAll(s.key, "_", "-") }
func (s setting) variable() string { return "WGEXPOSE_" + strings.ToUpper(s.key) }

// configFlag names the file itself, so it has no key in a file.
const (
	configFlag     = "config"
	configVariable = "WGEXPOSE_CONFIG"
)

// ConfigFlag adds --config alone, of an agent or an edge.
func ConfigFlag(flags *pflag.FlagSet) {
	flags.StringArray(configFlag, nil, "config `FILE`; can be repeated, and later ones win (default: see \"config path\")")
}

func addFlags(flags *pflag.FlagSet, settings []setting, file string) {
	if flags.Lookup(configFlag) == nil {
		flags.StringArray(configFlag, nil, "config `FILE`; can be repeated, and later ones win (default "+file+")")
	}
	for _, s := range settings {
		if on, err := parseBool(s.value); err == nil {
			flags.Bool(s.flag(), on, s.usage)
			continue
		}
		flags.String(s.flag(), s.value, s.usage)
	}
}

// merged has the value of every setting and knows where each came from.
type merged struct {
	*document
	settings []setting
	values   *viper.Viper
	flags    *pflag.FlagSet // may be nil
	fields   map[string]field
	inFile   map[string]string // the file's own values
}

// merge reads the file and puts flags, environment and defaults over it. more
// names the keys of the file that are no settings, such as tunnels.
func merge(flags *pflag.FlagSet, settings []setting, standard string, more ...string) (*merged, error) {
	doc, err := readDocuments(flags, standard)
	if err != nil {
		return nil, err
	}
	return mergeDocument(flags, settings, doc, more...)
}

// readDocuments reads the files that the user named, or else the standard one, and puts
// them over each other. With an error, which tells of the first that cannot be read, the
// document has what the others say.
func readDocuments(flags *pflag.FlagSet, standard string) (doc *document, err error) {
	names, named := configFiles(flags)
	if !named {
		names = []string{standard}
	}
	for i, name := range names {
		next, bad := readDocument(name, named)
		if bad != nil {
			next = &document{name: name}
			if err == nil {
				err = bad
			}
		}
		if i == 0 {
			doc = next
			continue
		}
		doc.over(next)
	}
	return doc, err
}

func mergeDocument(flags *pflag.FlagSet, settings []setting, doc *document, more ...string) (*merged, error) {
	known := make([]string, 0, len(settings)+len(more))
	for _, s := range settings {
		known = append(known, s.key)
	}
	m := &merged{
		document: doc,
		settings: settings,
		values:   viper.New(),
		flags:    flags,
		fields:   doc.fields(doc.root, "", append(known, more...)),
		inFile:   make(map[string]string),
	}
	file := make(map[string]any)
	// Each key is bound by name: viper's own guessing ignores variables that no
	// default names, and would split a key at its dots.
	for _, s := range settings {
		m.values.SetDefault(s.key, s.value)
		if err := m.values.BindEnv(s.key, s.variable()); err != nil {
			return nil, err
		}
		if flag := m.lookup(s); flag != nil {
			if err := m.values.BindPFlag(s.key, flag); err != nil {
				return nil, err
			}
		}
		if f, ok := m.fields[s.key]; ok {
			if text, ok := doc.scalar(f, s.key); ok {
				file[s.key], m.inFile[s.key] = text, text
			}
		}
	}
	if err := m.values.MergeConfigMap(file); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *merged) lookup(s setting) *pflag.Flag {
	if m.flags == nil {
		return nil
	}
	return m.flags.Lookup(s.flag())
}

// place tells where the value of a setting came from, and false for a default.
func (m *merged) place(key string) (Problem, bool) {
	for _, s := range m.settings {
		if s.key != key {
			continue
		}
		if flag := m.lookup(s); flag != nil && flag.Changed {
			return Problem{Place: "--" + s.flag(), Key: key, flag: true}, true
		}
		if os.Getenv(s.variable()) != "" {
			return Problem{Place: s.variable()}, true
		}
	}
	f, ok := m.fields[key]
	return m.at(f.line, key), ok
}

// firstSet is the first of keys that is set somewhere, or else the last.
func (m *merged) firstSet(keys ...string) string {
	for _, key := range keys {
		if _, set := m.place(key); set {
			return key
		}
	}
	return keys[len(keys)-1]
}

// problem notes that the value of key, wherever it came from, cannot be used.
func (m *merged) problem(key, message string) {
	p, _ := m.place(key)
	p.Message = message
	m.problems = append(m.problems, p)
}

func (m *merged) err() error {
	if len(m.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(m.problems, func(a, b Problem) int {
		if (a.line == 0) != (b.line == 0) {
			return cmp.Compare(b.line, a.line) // the file's first
		}
		return cmp.Compare(a.line, b.line)
	})
	return &Error{Problems: m.problems}
}

// take parses the value of a setting, and gives the default where it is wrong. A wrong
// value in the file is a problem even where a flag overrules it: the next start may come
// without the flag.
func take[T any](m *merged, key string, parse func(string) (T, error)) T {
	value := m.values.GetString(key)
	out, err := parse(value)
	if err != nil {
		m.problem(key, err.Error())
		out, _ = parse(m.settings[slices.IndexFunc(m.settings, func(s setting) bool { return s.key == key })].value)
	}
	if text, ok := m.inFile[key]; ok && text != value {
		if _, err := parse(text); err != nil {
			m.add(m.fields[key].line, key, "%s", err)
		}
	}
	return out
}

// configFiles tells which files the user named, and whether any was named.
// Several in the environment are separated as in PATH.
func configFiles(flags *pflag.FlagSet) ([]string, bool) {
	if flags != nil {
		if flag := flags.Lookup(configFlag); flag != nil && flag.Changed {
			if several, ok := flag.Value.(pflag.SliceValue); ok {
				return several.GetSlice(), true
			}
		}
	}
	if names := filepath.SplitList(os.Getenv(configVariable)); len(names) > 0 {
		return names, true
	}
	return nil, false
}

// userFile is a file of the user's configuration directory:
// $XDG_CONFIG_HOME/wgexpose, or the system's own place on macOS and Windows.
func userFile(name string) (string, error) {
	dir := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) { // the XDG specification has relative paths ignored
		var err error
		if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
			dir, err = os.UserConfigDir()
		} else if dir, err = os.UserHomeDir(); err == nil {
			dir = filepath.Join(dir, ".config")
		}
		if err != nil {
			return "", errors.New("no home directory is set, so there is no place for the configuration: name the file with --config")
		}
	}
	return filepath.Join(dir, "wgexpose", name), nil
}

// shown is a default path for help texts, with the user's home directory
// shortened, so that they read the same for everybody.
func shown(path func() (string, error)) string {
	p, err := path()
	if err != nil {
		return "none"
	}
	if home, err := os.UserHomeDir(); err == nil && home != "/" {
		if rest, ok := strings.CutPrefix(p, home+string(filepath.Separator)); ok {
			return filepath.Join("~", rest)
		}
	}
	return p
}
