"use strict";
// Plain scripts for the report: the photo table (sort, filter, jump from the map) and the mesh viewer.

(function photoTable() {
  const table = document.querySelector("table.sortable");
  if (!table) return;
  const body = table.tBodies[0], rows = [...body.rows], form = document.querySelector(".filter");
  const [search, state, shown] = [form.querySelector("input"), form.querySelector("select"), form.querySelector("output")];
  const value = (row, i) => row.cells[i].dataset.v === undefined ? row.cells[i].textContent : Number(row.cells[i].dataset.v);
  const collator = new Intl.Collator(undefined, { numeric: true });

  [...table.tHead.rows[0].cells].forEach((head, i) => {
    head.tabIndex = 0;
    const sort = () => {
      const numeric = head.classList.contains("n"), now = head.getAttribute("aria-sort");
      const down = now ? now === "ascending" : numeric;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const compare = numeric ? (a, b) => value(a, i) - value(b, i) : (a, b) => collator.compare(value(a, i), value(b, i));
      rows.sort((a, b) => (down ? -1 : 1) * compare(a, b));
      body.append(...rows);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  });

  const filter = () => {
    const words = search.value.trim().toLowerCase();
    let left = 0;
    for (const row of rows) {
      row.hidden = (state.value && row.dataset.state !== state.value) || !row.textContent.toLowerCase().includes(words);
      left += !row.hidden;
    }
    shown.textContent = left === rows.length ? "" : left + " match";
  };
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("input", filter);
  state.addEventListener("change", filter);

  for (const camera of document.querySelectorAll(".camera")) {
    camera.addEventListener("click", () => {
      const row = rows.find((r) => r.dataset.name === camera.dataset.photo);
      if (!row) return;
      search.value = state.value = "";
      filter();
      for (const other of rows) other.classList.toggle("found", other === row);
      row.scrollIntoView({ block: "center" });
    });
  }
})();

(function meshViewer() {
  const payload = document.getElementById("glb");
  if (!payload) return;
  const box = document.getElementById("viewer"), canvas = box.querySelector("canvas");
  const status = box.querySelector(".status"), tools = box.querySelector(".tools");
  const link = document.getElementById("download");

  const decode = (text) => {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const raw = atob(text), bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return bytes;
  };
  const bytes = decode(payload.textContent.trim());
  link.href = URL.createObjectURL(new Blob([bytes], { type: "model/gltf-binary" }));

  const begin = () => {
    let renderer;
    try {
      renderer = new THREE.WebGLRenderer({ canvas, antialias: true, alpha: true });
    } catch (error) {
      status.textContent = "This browser cannot show 3D here; download the glb and open it in another viewer.";
      return;
    }
    new THREE.GLTFLoader().parse(bytes.buffer, "", (gltf) => show(renderer, gltf.scene), (error) => {
      status.textContent = "The mesh could not be read: " + (error.message || error);
    });
  };

  const show = (renderer, model) => {
    const numbers = (text) => text.split(",").map(Number), data = payload.dataset;
    const scene = new THREE.Scene(), camera = new THREE.PerspectiveCamera(50, 1, 0.01, 100);
    model.rotation.x = Math.PI / 2; // glTF is y up; here, as in the world frame, z is
    model.updateMatrixWorld(true);
    const bounds = new THREE.Box3().setFromObject(model), center = bounds.getCenter(new THREE.Vector3());
    const reach = bounds.getSize(new THREE.Vector3()).length() / 2 || 1;
    // colours carry the light of the photos already, so they are drawn unlit; the bare shape is lit from the eye
    const shape = new THREE.MeshStandardMaterial({ color: 0xc4c4c4, roughness: 0.9, side: THREE.DoubleSide });
    const parts = [];
    model.traverse((node) => {
      if (!node.isMesh) return;
      if (!node.geometry.attributes.normal) node.geometry.computeVertexNormals();
      const given = node.material;
      node.userData.colors = new THREE.MeshBasicMaterial({
        vertexColors: !!node.geometry.attributes.color, map: given.map || null, side: THREE.DoubleSide,
      });
      node.material = node.userData.colors;
      parts.push(node);
    });
    const lamp = new THREE.DirectionalLight(0xffffff, 3.0); // goes with the eye, a little from above its left shoulder
    lamp.position.set(-0.5, 0.7, 1);
    camera.add(lamp, lamp.target);
    scene.add(model, camera, new THREE.AmbientLight(0xffffff, 0.35));
    camera.up.set(0, 0, 1);
    camera.near = reach / 500;
    camera.far = reach * 60;

    const controls = new THREE.OrbitControls(camera, canvas);
    // until someone takes hold of the mesh, the wheel scrolls the page
    controls.enableZoom = false;
    document.addEventListener("pointerdown", (event) => { controls.enableZoom = box.contains(event.target); }, true);
    let pending = false;
    const draw = () => {
      if (pending) return;
      pending = true;
      requestAnimationFrame(() => { pending = false; renderer.render(scene, camera); });
    };
    const home = () => {
      if (data.eye) {
        camera.position.set(...numbers(data.eye));
        controls.target.set(...numbers(data.target));
      } else {
        camera.position.copy(center).addScaledVector(new THREE.Vector3(0.6, -1, 0.45).normalize(), 2.2 * reach);
        controls.target.copy(center);
      }
      controls.update();
      draw();
    };
    const resize = () => {
      const { clientWidth: width, clientHeight: height } = canvas;
      if (!width || !height) return;
      renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
      renderer.setSize(width, height, false);
      camera.aspect = width / height;
      // the photo's own vertical angle, widened where the window is narrower than it is high
      const half = Math.tan(((Number(data.fov) || 45) * Math.PI) / 360) * Math.max(1, 1 / camera.aspect);
      camera.fov = (2 * Math.atan(half) * 180) / Math.PI;
      camera.updateProjectionMatrix();
      draw();
    };
    controls.addEventListener("change", draw);
    new ResizeObserver(resize).observe(canvas);

    const dress = { colors: (n) => n.userData.colors, shape: () => shape };
    tools.addEventListener("click", (event) => {
      const what = event.target.dataset.do;
      if (what === "reset") home();
      else if (what === "full") document.fullscreenElement ? document.exitFullscreen() : box.requestFullscreen();
      else if (dress[what]) {
        for (const node of parts) node.material = dress[what](node);
        for (const button of tools.querySelectorAll("[aria-pressed]"))
          button.setAttribute("aria-pressed", String(button.dataset.do === what));
        draw();
      }
    });
    if (!box.requestFullscreen) tools.querySelector('[data-do="full"]').remove();
    tools.hidden = false;
    status.remove();
    resize();
    home();
  };

  // a large mesh is decoded only when it comes into sight
  const watch = new IntersectionObserver((entries) => {
    if (entries.some((e) => e.isIntersecting)) { watch.disconnect(); begin(); }
  });
  watch.observe(box);
})();
