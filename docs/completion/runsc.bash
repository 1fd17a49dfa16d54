# bash completion for runsc: source it, or copy it to /usr/share/bash-completion/completions/runsc
_runsc()
{
	local cur=${COMP_WORDS[COMP_CWORD]} cmd= i
	local commands="create delete do help kill list run spec start state version"
	local globals="--root= --platform= --network= --overlay2= --file-access= --debug --debug-log= --log= --log-format=
		--strace --ignore-cgroups --rootless --systrap-disable-syscall-patching --version --help"

	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-*) ;;
		*)
			if [[ " $commands " == *" ${COMP_WORDS[i]} "* ]]; then
				cmd=${COMP_WORDS[i]}
				break
			fi
			;;
		esac
	done
	case $cmd in
	'') COMPREPLY=($(compgen -W "$([[ $cur == -* ]] && echo "$globals" || echo "$commands")" -- "$cur")) ;;
	do)
		case $cur in
		-*) COMPREPLY=($(compgen -W "--root= --cwd= --volume= --env=" -- "$cur")) ;;
		*) COMPREPLY=($(compgen -c -f -- "$cur")) ;;
		esac
		;;
	run) COMPREPLY=($(compgen -W "--bundle= --detach --pid-file=" -- "$cur")) ;;
	create) COMPREPLY=($(compgen -W "--bundle= --pid-file=" -- "$cur")) ;;
	spec) COMPREPLY=($(compgen -W "--bundle= --cwd=" -- "$cur")) ;;
	help) COMPREPLY=($(compgen -W "$commands syscalls" -- "$cur")) ;;
	list) COMPREPLY=($(compgen -W "--quiet --format=" -- "$cur")) ;;
	state | kill | delete | start)
		local root=/var/run/runsc
		[[ $cur == -* ]] && case $cmd in
		kill) COMPREPLY=($(compgen -W "--all --pid=" -- "$cur")) ;;
		delete) COMPREPLY=($(compgen -W "--force" -- "$cur")) ;;
		esac || COMPREPLY=($(compgen -W "$(runsc list --quiet 2>/dev/null)" -- "$cur"))
		;;
	esac
	[[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
complete -F _runsc runsc
