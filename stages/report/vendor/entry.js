/*! three.js 0.187.0, MIT licence, Copyright 2010-2026 three.js authors; see LICENSE-three.txt */
// What the page's viewer needs of three.js, bundled into three.min.js as the global THREE (see README.md).
export {
  AmbientLight, Box3, DirectionalLight, DoubleSide, MeshBasicMaterial, MeshStandardMaterial, PerspectiveCamera, Scene,
  Vector3, WebGLRenderer,
} from "three";
export { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
