// How those who deploy by GitOps judge an object: Flux and kubectl-like tools by kstatus, Argo CD by a script in Lua.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// What a judge says of an object.
type verdict struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

// Reads an object as JSON from standard input, and prints what a judge says of it, as JSON.
func answer(judge func(*unstructured.Unstructured) (verdict, error)) int {
	var object unstructured.Unstructured
	var said verdict
	text, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = object.UnmarshalJSON(text)
	}
	if err == nil {
		said, err = judge(&object)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(said)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func kstatusOf(object *unstructured.Unstructured) (verdict, error) {
	found, err := status.Compute(object)
	if err != nil {
		return verdict{}, err
	}
	return verdict{found.Status.String(), found.Message}, nil
}

// Runs the script that the first argument names, with no more of Lua than Argo CD gives it: no string library, no files.
func argoHealthOf(object *unstructured.Unstructured) (verdict, error) {
	if len(os.Args) != 2 {
		return verdict{}, errors.New("usage: argocd-health SCRIPT <OBJECT")
	}
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable,
	} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return verdict{}, err
		}
	}
	state.SetGlobal("obj", toLua(state, object.Object))
	if err := state.DoFile(os.Args[1]); err != nil {
		return verdict{}, err
	}
	table, is := state.Get(-1).(*lua.LTable)
	if !is {
		return verdict{}, errors.New("the script returns no table")
	}
	return verdict{lua.LVAsString(table.RawGetString("status")), lua.LVAsString(table.RawGetString("message"))}, nil
}

func toLua(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case bool:
		return lua.LBool(value)
	case int64:
		return lua.LNumber(value)
	case float64:
		return lua.LNumber(value)
	case string:
		return lua.LString(value)
	case []any:
		table := state.NewTable()
		for _, item := range value {
			table.Append(toLua(state, item))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for key, item := range value {
			table.RawSetString(key, toLua(state, item))
		}
		return table
	default:
		return lua.LNil
	}
}
