# bash completion of tickwire-lab; after `exec … --` a command of the host is completed
_tickwire_lab()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]:-} i
	COMPREPLY=()
	if [ "$COMP_CWORD" = 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "start exec status logs restart stop --help" -- "$cur")
		return
	fi
	for ((i = 2; i < COMP_CWORD; i++)); do
		if [ "${COMP_WORDS[i]}" = -- ]; then
			[ "$verb" = exec ] && mapfile -t COMPREPLY < <(compgen -c -- "$cur")
			return
		fi
	done
	case $prev in
	--name)
		mapfile -t COMPREPLY < <(compgen -W "$(ls /run/tickwire-lab 2>/dev/null)" -- "$cur")
		return
		;;
	--port)
		mapfile -t COMPREPLY < <(compgen -W "net_tap net_af_packet net_af_xdp memif" -- "$cur")
		return
		;;
	--formatter)
		mapfile -t COMPREPLY < <(compgen -W "table json" -- "$cur")
		return
		;;
	--config)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	--workers | --eal | -n) return ;;
	esac
	local words="--name --help"
	case $verb in
	start) words+=" --port --workers --config --eal --keep-failed --" ;;
	exec) words+=" --" ;;
	status) words+=" --formatter" ;;
	logs) words+=" -n -f dataplane control" ;;
	restart) words+=" dataplane control" ;;
	stop) words+=" --all" ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _tickwire_lab tickwire-lab tools/lab
