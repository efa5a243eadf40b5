// Renders the chart where helm is not at hand, with the few functions of templates that it uses, so that a chart that
// does not render is found before it is published. Values come as JSON on standard input.
//
//	python3 -c 'import json, yaml, sys; json.dump(yaml.safe_load(sys.stdin), sys.stdout)' < values.yaml |
//	    go run render.go ironkeep RELEASE
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"text/template"
)

func isEmpty(value any) bool {
	switch value := value.(type) {
	case nil:
		return true
	case string:
		return value == ""
	case float64:
		return value == 0
	case bool:
		return !value
	}
	return false
}

func number(value any) int64 {
	switch value := value.(type) {
	case float64:
		return int64(value)
	case int:
		return int64(value)
	}
	return 0
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	folder, release := os.Args[1], os.Args[2]
	var values map[string]any
	must(json.NewDecoder(os.Stdin).Decode(&values))
	chart := template.New("chart").Option("missingkey=error")
	chart.Funcs(template.FuncMap{
		"quote": func(value any) string { return strconv.Quote(fmt.Sprint(value)) },
		"required": func(message string, value any) (any, error) {
			if isEmpty(value) {
				return nil, errors.New(message)
			}
			return value, nil
		},
		"default": func(fallback, value any) any {
			if isEmpty(value) {
				return fallback
			}
			return value
		},
		"toYaml": func(value any) (string, error) {
			text, err := json.Marshal(value) // JSON is YAML
			return string(text), err
		},
		"nindent": func(width int, text string) string {
			space := "\n" + strings.Repeat(" ", width)
			return space + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", space)
		},
		"trunc": func(length int, text string) string {
			if len(text) > length {
				return text[:length]
			}
			return text
		},
		"div": func(one, other any) int64 { return number(one) / number(other) },
		"include": func(name string, data any) (string, error) {
			var out bytes.Buffer
			err := chart.ExecuteTemplate(&out, name, data)
			return out.String(), err
		},
	})
	names, err := filepath.Glob(filepath.Join(folder, "templates", "*"))
	must(err)
	sort.Strings(names)
	_, err = chart.ParseFiles(names...)
	must(err)
	data := map[string]any{
		"Values":  values,
		"Release": map[string]any{"Name": release},
		"Chart":   map[string]any{"AppVersion": "0.0.0"},
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".yaml") {
			fmt.Println("---")
			must(chart.ExecuteTemplate(os.Stdout, filepath.Base(name), data))
		}
	}
}
