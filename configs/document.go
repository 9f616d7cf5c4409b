package configs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile is the largest configuration file that is read, in bytes.
const maxFile = 1 << 20

// document is one parsed file, or several that were put over each other. The zero
// value is a file that sets nothing.
type document struct {
	name     string
	more     []string   // the names of the files over it, in order
	root     *yaml.Node // a mapping, or nil
	problems []Problem
}

// A line tells its file, too: its number is that of the line plus fileLines for
// each file before it. So problems sort by file, then line.
const fileLines = 1 << 24

// over puts the file d over this one: its keys win. Its tunnels stand beside the
// others or, under the same name, their keys win likewise. Other maps and lists
// are taken whole: what belongs to one DNS provider is of no use to another.
func (base *document) over(d *document) {
	base.more = append(base.more, d.name)
	offset := len(base.more) * fileLines
	moveLines(d.root, offset)
	for _, p := range d.problems {
		p.line += offset
		base.problems = append(base.problems, p)
	}
	base.root = mergeMaps(base.root, d.root, func(key string) int {
		if key == tunnelsKey {
			return 2 // tunnels by name, and what is said of each
		}
		return 0
	})
}

func moveLines(n *yaml.Node, offset int) {
	if n == nil {
		return
	}
	n.Line += offset
	for _, c := range n.Content { // an alias is no part of the content
		moveLines(c, offset)
	}
}

// mergeMaps returns a map of what is in low, in its order, with the values of high
// where high has the key, then of all else in high. depth tells for a key through
// how many levels of maps its values are merged likewise; an empty value changes
// nothing there. null, or ~, in high takes away what low says of the key.
func mergeMaps(low, high *yaml.Node, depth func(key string) int) *yaml.Node {
	if low == nil || high == nil {
		if low == nil {
			return high
		}
		return low
	}
	lower, upper := places(low), places(high)
	merged := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: high.Line}
	for i := 0; i+1 < len(low.Content); i += 2 {
		key := resolve(low.Content[i])
		j, over := upper[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || !over:
			merged.Content = append(merged.Content, low.Content[i], low.Content[i+1])
			continue
		case lower[key.Value] != i:
			continue // said twice, and overruled
		}
		name, before, v := high.Content[j], resolve(low.Content[i+1]), resolve(high.Content[j+1])
		n := depth(key.Value)
		if saysNull(v) {
			continue // taken away
		}
		if n > 0 && isNull(v) {
			name, v = low.Content[i], before
		} else if n > 0 && before.Kind == yaml.MappingNode && v.Kind == yaml.MappingNode {
			v = mergeMaps(before, v, func(string) int { return n - 1 })
		}
		merged.Content = append(merged.Content, name, v)
	}
	for j := 0; j+1 < len(high.Content); j += 2 {
		key := resolve(high.Content[j])
		_, known := lower[key.Value]
		if key.Kind != yaml.ScalarNode || !known || upper[key.Value] != j { // what is said twice stays, to be told
			merged.Content = append(merged.Content, high.Content[j], high.Content[j+1])
		}
	}
	return merged
}

// places tells where in a map's content each key stands first.
func places(m *yaml.Node) map[string]int {
	at := make(map[string]int)
	for i := 0; i+1 < len(m.Content); i += 2 {
		if key := resolve(m.Content[i]); key.Kind == yaml.ScalarNode {
			if _, twice := at[key.Value]; !twice {
				at[key.Value] = i
			}
		}
	}
	return at
}

// field is one key of a mapping.
type field struct {
	line  int
	value *yaml.Node // never an alias
}

// readDocument reads and parses the file. One that is not there is an error
// only when the user named it.
func readDocument(name string, named bool) (*document, error) {
	f, err := os.Open(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && !named {
			return &document{name: name}, nil
		}
		return nil, unreadable(name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, unreadable(name, err)
	}
	return parseDocument(name, data), nil
}

// unreadable is the error about a file that cannot be read.
func unreadable(name string, err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = path.Err // the name is told already
	}
	return &Error{cause: err, Problems: []Problem{{Place: name, Message: "the configuration cannot be read: " + err.Error()}}}
}

// parseDocument parses data. What is wrong is in the document's problems.
func parseDocument(name string, data []byte) *document {
	d := &document{name: name}
	if len(data) > maxFile {
		d.add(1, "", "the file is larger than %d bytes, the most that is read", maxFile)
		return d
	}
	decoder := yaml.NewDecoder(strings.NewReader(string(data)))
	var first, second yaml.Node
	if err := decoder.Decode(&first); err != nil {
		if !errors.Is(err, io.EOF) {
			d.syntax(err)
		}
		return d
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		d.add(second.Line, "", "a second YAML document begins here; put all settings into one")
	case !errors.Is(err, io.EOF):
		d.syntax(err)
	}
	if len(first.Content) != 1 {
		return d
	}
	root := resolve(first.Content[0])
	switch {
	case isNull(root):
	case root.Kind != yaml.MappingNode:
		d.add(root.Line, "", "the file must be a map of keys to values, and is %s", describe(root))
	default:
		d.root = root
	}
	return d
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// syntax notes an error of the YAML parser, which has the line in its text, or
// no line when it means the first.
func (d *document) syntax(err error) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil && n > 0 {
			line = n
		}
		text = text[len(m[0]):]
	}
	d.add(line, "", "not valid YAML: %s", text)
}

func (d *document) add(line int, key, format string, args ...any) {
	p := d.at(line, key)
	p.Message = fmt.Sprintf(format, args...)
	d.problems = append(d.problems, p)
}

func (d *document) at(line int, key string) Problem {
	name := d.name
	if n := line / fileLines; n > 0 && n <= len(d.more) {
		name = d.more[n-1]
	}
	line = max(line, 1)
	return Problem{Place: name + ":" + strconv.Itoa(max(line%fileLines, 1)), Key: key, line: line}
}

// fields splits a mapping into its known keys. Unknown and repeated ones become
// problems. above is the dotted path of the mapping, empty at the top.
func (d *document) fields(mapping *yaml.Node, above string, known []string) map[string]field {
	found := make(map[string]field)
	d.each(mapping, above, func(key string, f field) {
		for _, k := range known {
			if k == key {
				found[key] = f
				return
			}
		}
		d.add(f.line, join(above, key), "unknown key; allowed here: %s", strings.Join(known, ", "))
	})
	return found
}

// each calls fn for every key of a mapping in the order of the file.
func (d *document) each(mapping *yaml.Node, above string, fn func(key string, f field)) {
	if mapping == nil {
		return
	}
	first := make(map[string]int)
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := resolve(mapping.Content[i]), resolve(mapping.Content[i+1])
		line := mapping.Content[i].Line
		if key.Kind != yaml.ScalarNode {
			d.add(line, above, "a key must be a plain word, and this is %s", describe(key))
			continue
		}
		if before, twice := first[key.Value]; twice {
			d.add(line, join(above, key.Value), "set twice; it is on line %d already", before%fileLines)
			continue
		}
		first[key.Value] = line
		fn(key.Value, field{line: line, value: value})
	}
}

// scalar takes a plain value as the text that stands in the file, with the values
// of the variables that it names.
func (d *document) scalar(f field, key string) (string, bool) {
	switch {
	case isNull(f.value):
		d.add(f.line, key, "has no value; give one or take the line out")
	case f.value.Kind != yaml.ScalarNode:
		d.add(f.line, key, "must be one value, and is %s", describe(f.value))
	default:
		text, err := expand(f.value.Value)
		if err == nil {
			return text, true
		}
		d.add(f.line, key, "%s", err)
	}
	return "", false
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand puts the environment's values in the place of each ${NAME}. $${ stands
// for ${ itself. Other dollars mean nothing.
func expand(text string) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "${")
		if !found {
			out.WriteString(text)
			return out.String(), nil
		}
		if escaped, ok := strings.CutSuffix(before, "$"); ok {
			out.WriteString(escaped + "${")
			text = rest
			continue
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed || !variableName.MatchString(name) {
			return "", errors.New("names no variable after ${; allowed: ${NAME}, or $${ for the characters themselves")
		}
		value := os.Getenv(name)
		if value == "" {
			return "", fmt.Errorf("the variable %s is not set", name)
		}
		out.WriteString(before + value)
		text = after
	}
}

// list takes a plain value, or several in a list, each on its own line of the
// result.
func (d *document) list(f field, key string) (string, bool) {
	if f.value.Kind != yaml.SequenceNode {
		return d.item(f, key)
	}
	if len(f.value.Content) == 0 {
		d.add(f.line, key, "is an empty list; give a value or take the line out")
		return "", false
	}
	var items []string
	good := true
	for _, n := range f.value.Content {
		n = resolve(n)
		item, ok := d.item(field{line: n.Line, value: n}, key)
		items, good = append(items, item), good && ok
	}
	return strings.Join(items, "\n"), good
}

func (d *document) item(f field, key string) (string, bool) {
	text, ok := d.scalar(f, key)
	if ok && strings.Contains(text, "\n") {
		d.add(f.line, key, "goes over several lines")
		return "", false
	}
	return text, ok
}

// resolve follows an alias (*name) to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// saysNull reports whether n says so, as an empty value does not.
func saysNull(n *yaml.Node) bool { return isNull(n) && n.Value != "" }

func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a map"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "empty"
	default:
		return "the value " + quote(n.Value)
	}
}

func join(above, key string) string {
	if len(key) > 64 {
		key = strings.ToValidUTF8(key[:64], "") + "…"
	}
	if above == "" {
		return key
	}
	return above + "." + key
}
