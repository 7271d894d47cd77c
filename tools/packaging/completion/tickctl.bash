# bash completion of tickctl: commands, options and columns are read from tickctl itself, so that none is listed twice
_tickctl()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} program=${COMP_WORDS[0]} word verb='' i help
	COMPREPLY=()
	[ "$cur" = = ] && cur=
	[ "$prev" = = ] && prev=${COMP_WORDS[COMP_CWORD-2]}
	case $prev in
	--formatter)
		mapfile -t COMPREPLY < <(compgen -W "table pretty_table json csv" -- "$cur")
		return
		;;
	--socket)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	-p | --vhost)
		mapfile -t COMPREPLY < <(compgen -W "$("$program" -q list_vhosts --no-table-headers name 2>/dev/null)" -- "$cur")
		return
		;;
	-t | --timeout) return ;;
	esac
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		case $word in
		-p | --vhost | --formatter | -t | --timeout | --socket) i=$((i + 1)) ;;
		-* | =) ;;
		*) verb=$word; break ;;
		esac
	done
	help=$("$program" help 2>/dev/null)
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(grep -oE -- '--[a-z-]+' <<<"$help" | sort -u)" -- "$cur")
		return
	fi
	case $verb in
	"") mapfile -t COMPREPLY < <(compgen -W "$(sed -n 's/^  \([a-z][a-z_]*\) .*/\1/p' <<<"$help")" -- "$cur") ;;
	list_* | matcher)
		# A column that cannot be is answered with all that can, before any socket is opened.
		mapfile -t COMPREPLY < <(compgen -W "$("$program" "$verb" '?' 2>&1 | sed -n 's/.*it has: //p')" -- "$cur")
		;;
	close_connection) mapfile -t COMPREPLY < <(compgen -W "$("$program" -q list_connections --no-table-headers pid 2>/dev/null)" -- "$cur") ;;
	purge_queue | delete_queue)
		mapfile -t COMPREPLY < <(compgen -W "$("$program" -q list_queues --no-table-headers name 2>/dev/null)" -- "$cur")
		;;
	esac
}
complete -F _tickctl tickctl
